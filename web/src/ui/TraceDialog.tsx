/** Why this answer: fetched when somebody asks. */

import { type ReactNode, useEffect, useState } from "react";

import { api } from "../chat/api";
import type { Trace, TracedCall } from "../chat/types";
import { number, useWords, type Word } from "../words";
import { Dialog } from "./Dialog";

const CONTEXT: [string, Word][] = [
  ["instructions", "traceInstructions"],
  ["tools", "traceTools"],
  ["summary", "traceSummary"],
  ["history", "traceHistory"],
  ["input", "traceInput"],
];

export default function TraceDialog({ response, onClose }: { response: string; onClose: () => void }) {
  const words = useWords();
  const [trace, setTrace] = useState<Trace | null>(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    api.trace(response).then(setTrace, () => setFailed(true));
  }, [response]);

  return (
    <Dialog title={words("trace")} onClose={onClose}>
      {failed && <p role="alert">{words("failed")}</p>}
      {!trace && !failed && <p>{words("loading")}</p>}
      {trace && <Facts trace={trace} />}
    </Dialog>
  );
}

function Facts({ trace }: { trace: Trace }) {
  const words = useWords();
  const context = CONTEXT.filter(([part]) => (trace.context[part] ?? 0) > 0);
  const { total_ms: total, first_token_ms: first } = trace.timings;
  return (
    <>
      <dl className="trace">
        <Fact name={words("model")}>{[trace.model, trace.deployment].filter(Boolean).join(" → ")}</Fact>
        <Fact name={words("traceTime")}>
          {total != null && ms(total)}
          {first != null && ` (${words("firstToken", { seconds: number(first / 1000, { maximumFractionDigits: 3 }) })})`}
        </Fact>
        {trace.usage && (
          <Fact name={words("traceTokens")}>
            {words("traceInOut", {
              input: number(trace.usage.input_tokens),
              cached: number(trace.usage.input_tokens_details?.cached_tokens ?? 0),
              output: number(trace.usage.output_tokens),
            })}
          </Fact>
        )}
        <Fact name={words("traceCost")}>
          {number(trace.cost, { style: "currency", currency: "USD", maximumFractionDigits: 6 })}
        </Fact>
        {trace.storage.request_charge !== null && <Fact name={words("traceCharge")}>{number(trace.storage.request_charge)} RU</Fact>}
        {trace.prompt_version && <Fact name={words("tracePrompt")}>{trace.prompt_version}</Fact>}
        {Object.entries(trace.flags).map(([flag, variant]) => (
          <Fact key={flag} name={flag}>
            {variant}
          </Fact>
        ))}
      </dl>
      <Section title={words("traceContext")} shown={context.length > 0}>
        {context.map(([part, word]) => (
          <li key={part}>
            {words(word)}: {words("tokens", { count: number(trace.context[part] ?? 0) })}
          </li>
        ))}
      </Section>
      <Section title={words("traceCalls")} shown={trace.calls.length > 0}>
        {trace.calls.map((call, place) => (
          <li key={place}>{described(call)}</li>
        ))}
      </Section>
      <Section title={words("traceTools")} shown={trace.tools.length > 0}>
        {trace.tools.map((tool, place) => (
          <li key={place}>
            {tool.failed ? words("toolFailed", { name: tool.name }) : tool.name}, {ms(tool.ms)}
          </li>
        ))}
      </Section>
      <Section title={words("traceNotes")} shown={trace.notes.length + (trace.guardrails?.length ?? 0) > 0}>
        {[...trace.notes, ...(trace.guardrails ?? [])].map((note, place) => (
          <li key={place}>{note}</li>
        ))}
      </Section>
    </>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Section({ title, shown, children }: { title: string; shown: boolean; children: ReactNode }) {
  if (!shown) return null;
  return (
    <>
      <h3>{title}</h3>
      <ul className="trace-list">{children}</ul>
    </>
  );
}

function described(call: TracedCall): string {
  const parts = [call.deployment, call.reason, call.skipped ?? call.outcome, call.error, call.ms === undefined ? null : ms(call.ms)];
  return parts.filter(Boolean).join(", ");
}

function ms(value: number): string {
  return value < 1000 ? `${number(value, { maximumFractionDigits: 0 })} ms` : `${number(value / 1000, { maximumFractionDigits: 1 })} s`;
}
