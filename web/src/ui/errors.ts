/** Errors in plain words. What the server said exactly is shown on demand. */

import { codeOf, messageOf, SPENT, statusOf } from "../chat/api";
import type { Turn } from "../chat/types";
import type { Word } from "../words";

export interface Trouble {
  word: Word;
  /** The server's own words. */
  detail: string | null;
  /** Whether trying again can help. */
  canRetry: boolean;
}

/** Of a turn that did not end well; null for one that did. */
export function troubleOf(turn: Turn): Trouble | null {
  switch (turn.status) {
    case "failed":
      return { word: failureWord(turn.error?.code), detail: turn.error?.message ?? null, canRetry: true };
    case "cancelled":
      return { word: "errorStopped", detail: null, canRetry: false };
    case "incomplete":
      return { word: incompleteWord(turn.incomplete_details?.reason), detail: null, canRetry: true };
    default:
      return null;
  }
}

function failureWord(code: string | null | undefined): Word {
  if (code === "rate_limit_exceeded") return "errorBusy";
  if (code === "invalid_prompt") return "errorRefused";
  return "errorServer";
}

function incompleteWord(reason: string | undefined): Word {
  if (reason === "content_filter") return "errorFilter";
  return reason === "max_output_tokens" ? "errorLength" : "errorIncomplete";
}

/** Of a request that the server refused. */
export function refusalOf(error: unknown): Trouble {
  const detail = error === null ? null : messageOf(error);
  switch (statusOf(error)) {
    case undefined:
      return { word: error === null ? "errorHeld" : "errorServer", detail, canRetry: true };
    case 401:
      return { word: "errorKey", detail, canRetry: true };
    case 404:
      return { word: "errorGone", detail, canRetry: false };
    case 413:
      return { word: "errorTooLarge", detail, canRetry: false };
    case 429:
      return { word: codeOf(error) === SPENT ? "errorSpent" : "errorBusy", detail, canRetry: true };
    default:
      return { word: (statusOf(error) ?? 0) >= 500 ? "errorServer" : "errorRefused", detail, canRetry: true };
  }
}
