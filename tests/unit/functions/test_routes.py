import pytest

from functions._routes import Template


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("", "/", {}),
        ("v1/models", "/v1/models", {}),
        ("v1/models", "/V1/Models/", {}),
        ("v1/models", "/v1/models/x", None),
        ("v1/models", "/v1", None),
        ("v1/files/{id}/content", "/v1/files/file-1/content", {"id": "file-1"}),
        ("v1/files/{id}", "/v1/files/", None),
        ("{*path}", "/", {}),
        ("{*path}", "/a/b", {"path": "a/b"}),
        ("{**path}", "/a/b", {"path": "a/b"}),
        ("a/{*rest}", "/a", {}),
        ("a/{*rest}", "/b", None),
        ("a/{n:int}", "/a/12", {"n": "12"}),
        ("a/{n:int}", "/a/x", None),
        ("a/{n:int:min(3)}", "/a/2", None),
        ("a/{n:range(1,5)}", "/a/5", {"n": "5"}),
        ("a/{n:max(5)}", "/a/6", None),
        ("a/{n:max(5)}", "/a/x", None),
        ("a/{s:length(2,3)}", "/a/xyz", {"s": "xyz"}),
        ("a/{s:length(2)}", "/a/xyz", None),
        ("a/{s:minlength(2)}", "/a/x", None),
        ("a/{s:maxlength(2)}", "/a/xyz", None),
        ("a/{s:alpha}", "/a/x1", None),
        ("a/{s:regex(^x)}", "/a/xy", {"s": "xy"}),
        ("a/{id:guid}", "/a/9b2c1e4e-0d4c-4f9e-8a51-2f3f0e6f0c11", {"id": "9b2c1e4e-0d4c-4f9e-8a51-2f3f0e6f0c11"}),
        ("a/{page?}", "/a", {}),
        ("a/{page=1}", "/a", {"page": "1"}),
        ("a/{page=1}", "/a/2", {"page": "2"}),
        ("f/{stem}.{extension}", "/f/a.pdf", {"stem": "a", "extension": "pdf"}),
        ("f/{stem}.{extension}", "/f/a", None),
        ("a/{name}", "/a/b%20c", {"name": "b c"}),
        ("a/{name}", "/a/%C3%A4", {"name": "ä"}),
        ("a/{name}", "/a/b%2fc", {"name": "b%2Fc"}),
        ("a.b", "/axb", None),
    ],
)
def test_a_template_matches_as_in_the_host(template: str, path: str, values: dict[str, str] | None) -> None:
    assert Template.parse(template).match(path) == values


def test_the_more_specific_template_goes_first() -> None:
    order = ["a/b", "a/{x:int}", "a/{x}", "a/{*rest:int}", "a/{*rest}", "{*path}"]

    assert [each.text for each in sorted(map(Template.parse, reversed(order)), key=lambda each: each.rank)] == order


def test_an_unknown_constraint_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown route constraint 'odd'"):
        Template.parse("a/{n:odd}")
