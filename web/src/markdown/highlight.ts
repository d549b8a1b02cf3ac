/** Code with colours: fetched when the first code block is shown. */

import { common, createLowlight } from "lowlight";
import { createElement, type ReactNode } from "react";

const lowlight = createLowlight(common);

type Node = ReturnType<typeof lowlight.highlight>["children"][number];

/** The coloured code; null for a language that is not known. */
export function highlight(code: string, language: string): ReactNode | null {
  if (!lowlight.registered(language)) return null;
  return lowlight.highlight(language, code).children.map(element);
}

function element(node: Node, place: number): ReactNode {
  if (node.type === "text") return node.value;
  if (node.type !== "element") return null;
  const className = (node.properties["className"] as string[] | undefined)?.join(" ");
  return createElement("span", { key: place, className }, node.children.map((child, index) => element(child as Node, index)));
}
