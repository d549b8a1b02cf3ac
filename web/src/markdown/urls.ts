/** Where a link of an answer may lead. */

const ALLOWED = new Set(["http:", "https:", "mailto:"]);

export interface Target {
  href: string;
  /** What the user is told: the host, or the mail address. */
  where: string;
}

/** Null for what is no absolute address of an allowed kind: scripts, data, paths of this very page. */
export function targetOf(href: string): Target | null {
  let url: URL;
  try {
    url = new URL(href.trim());
  } catch {
    return null;
  }
  if (!ALLOWED.has(url.protocol)) return null;
  return { href: url.href, where: url.protocol === "mailto:" ? url.pathname : url.host };
}
