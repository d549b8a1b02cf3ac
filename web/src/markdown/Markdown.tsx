/**
 * An answer's markdown as elements.
 *
 * Nothing becomes HTML: each token of the lexer is turned into one of the elements below, and what is not listed is
 * text. So an answer cannot bring a script, a style, a frame or a form with it, and no image is loaded from anywhere.
 */

import type { Token, Tokens } from "marked";
import { createElement, Fragment, memo, type ReactNode, useState } from "react";

import { useWords } from "../words";
import { Blocks } from "./blocks";
import { CodeBlock } from "./CodeBlock";
import { Formula } from "./Formula";
import type { MathToken } from "./math";
import { targetOf } from "./urls";

export const Markdown = memo(function Markdown({ text }: { text: string }) {
  const [blocks] = useState(() => new Blocks());
  return (
    <div className="markdown" dir="auto">
      {blocks.read(text).map((token, place) => (
        <Block key={place} token={token} />
      ))}
    </div>
  );
});

const Block = memo(
  function Block({ token }: { token: Token }): ReactNode {
    return block(token as Tokens.Generic);
  },
  (before, after) => before.token === after.token || before.token.raw === after.token.raw,
);

function block(token: Tokens.Generic): ReactNode {
  switch (token.type) {
    case "heading":
      return createElement(`h${Math.min((token as Tokens.Heading).depth + 1, 6)}`, { dir: "auto" }, inline(token.tokens));
    case "paragraph":
      return <p dir="auto">{inline(token.tokens)}</p>;
    case "text":
      return token.tokens ? inline(token.tokens) : plain(token["text"] as string);
    case "code":
      return <CodeBlock code={token["text"] as string} language={firstWord(token["lang"] as string | undefined)} />;
    case "list":
      return <List list={token as Tokens.List} />;
    case "blockquote":
      return <blockquote dir="auto">{blocksOf(token.tokens)}</blockquote>;
    case "table":
      return <Table table={token as Tokens.Table} />;
    case "hr":
      return <hr />;
    case "math":
      return <Formula tex={(token as MathToken).tex} isDisplay />;
    case "space":
    case "def":
      return null;
    default:
      return <p dir="auto">{token.raw}</p>;
  }
}

function blocksOf(tokens: Token[] | undefined): ReactNode {
  return tokens?.map((token, place) => <Block key={place} token={token} />);
}

function List({ list }: { list: Tokens.List }) {
  const items = list.items.map((item, place) => <ListItem key={place} item={item} />);
  if (!list.ordered) return <ul dir="auto">{items}</ul>;
  return (
    <ol dir="auto" start={list.start === "" ? 1 : list.start}>
      {items}
    </ol>
  );
}

const ListItem = memo(
  function ListItem({ item }: { item: Tokens.ListItem }) {
    return (
      <li className={item.task ? "task" : undefined}>
        {item.task && <input type="checkbox" checked={item.checked ?? false} disabled aria-label={item.checked ? "✓" : "–"} />}
        {blocksOf(item.tokens.filter((token) => token.type !== "checkbox"))}
      </li>
    );
  },
  (before, after) => before.item.raw === after.item.raw && before.item.loose === after.item.loose,
);

function Table({ table }: { table: Tokens.Table }) {
  const words = useWords();
  return (
    <div className="table" tabIndex={0} role="region" aria-label={words("table")}>
      <table>
        <thead>
          <tr>
            {table.header.map((cell, place) => (
              <th key={place} scope="col" className={table.align[place] ?? undefined} dir="auto">
                {inline(cell.tokens)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map((row, place) => (
            <TableRow key={place} row={row} align={table.align} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

const TableRow = memo(
  function TableRow({ row, align }: { row: Tokens.TableCell[]; align: Tokens.Table["align"] }) {
    return (
      <tr>
        {row.map((cell, place) => (
          <td key={place} className={align[place] ?? undefined} dir="auto">
            {inline(cell.tokens)}
          </td>
        ))}
      </tr>
    );
  },
  (before, after) => before.row.every((cell, place) => cell.text === after.row[place]?.text),
);

function inline(tokens: Token[] | undefined): ReactNode {
  return tokens?.map((token, place) => <Fragment key={place}>{phrase(token as Tokens.Generic)}</Fragment>);
}

function phrase(token: Tokens.Generic): ReactNode {
  switch (token.type) {
    case "text":
      return token.tokens ? inline(token.tokens) : plain(token["text"] as string);
    case "escape":
      return token["text"] as string;
    case "strong":
      return <strong>{inline(token.tokens)}</strong>;
    case "em":
      return <em>{inline(token.tokens)}</em>;
    case "del":
      return <del>{inline(token.tokens)}</del>;
    case "codespan":
      return <code>{token["text"] as string}</code>;
    case "br":
      return <br />;
    case "link":
      return <Link link={token as Tokens.Link} />;
    case "image":
      return <ImageName image={token as Tokens.Image} />;
    case "math":
      return <Formula tex={(token as MathToken).tex} isDisplay={(token as MathToken).isDisplay} />;
    case "html":
      return /^<br\s*\/?>$/i.test(token.raw) ? <br /> : token.raw;
    default:
      return token.raw;
  }
}

/** A link says where it goes, in words next to it where its own words do not. */
function Link({ link }: { link: Tokens.Link }) {
  const words = useWords();
  const target = targetOf(link.href);
  if (!target) return <span title={link.href}>{inline(link.tokens)}</span>;
  const isSaid = link.text.includes(target.where);
  return (
    <a href={target.href} target="_blank" rel="noopener noreferrer nofollow" title={target.href}>
      {inline(link.tokens)}
      {!isSaid && <span className="where">{target.where}</span>}
      <span className="hidden">({words("linkTo", { host: target.where })})</span>
    </a>
  );
}

/** An image's name, and a link to it: who answers with an image would otherwise learn who reads, and when. */
function ImageName({ image }: { image: Tokens.Image }) {
  const words = useWords();
  const target = targetOf(image.href);
  const name = words("imageNotLoaded", { name: image.text || target?.where || "" });
  if (!target) return <span className="image-name">{name}</span>;
  return (
    <a className="image-name" href={target.href} target="_blank" rel="noopener noreferrer nofollow" title={target.href}>
      {name}
      <span className="where">{target.where}</span>
    </a>
  );
}

const ENTITY = /&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z][\da-z]{1,31});/gi;
const decoded = new Map<string, string>();

/** Text with its character references resolved, by a parser whose document is never shown. */
function plain(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(ENTITY, (reference) => {
    let character = decoded.get(reference);
    if (character === undefined) {
      character = new DOMParser().parseFromString(reference, "text/html").body.textContent ?? reference;
      decoded.set(reference, character);
    }
    return character;
  });
}

function firstWord(text: string | undefined): string {
  return text?.trim().split(/\s/)[0]?.toLowerCase() ?? "";
}
