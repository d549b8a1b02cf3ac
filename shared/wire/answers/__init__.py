"""What the API answers, as types: the document is made from them, and tests hold the real answers against them."""
