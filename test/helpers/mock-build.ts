import type { BuildEvent } from '../../src/builder/build-event.ts';
import type { Builder, BuildRequest, BuildResult } from '../../src/builder/builder.ts';
import { parseSpec } from '../../src/spec/parse-spec.ts';

export type LogLine = [type: 'Heading' | 'Note' | 'Output', text: string];

/** What a build said, as the golden data writes it: output that nothing interrupts is one piece. */
export function logOf(events: readonly BuildEvent[]): LogLine[] {
  const log: LogLine[] = [];
  for (const event of events) {
    if (event.type === 'heading') log.push(['Heading', event.text]);
    else if (event.type === 'note') log.push(['Note', event.text]);
    else if (event.type === 'output') {
      const text = Buffer.from(event.data).toString();
      const last = log.at(-1);
      if (last?.[0] === 'Output') last[1] += text;
      else log.push(['Output', text]);
    }
  }
  return log;
}

/** A build that was started. */
export interface StartedBuild {
  readonly events: readonly BuildEvent[];
  readonly result: Promise<BuildResult>;
  /** Resolves when the build's log holds `text`; rejects when the build ends without it. */
  said(text: string): Promise<void>;
  cancel(): void;
}

export function startBuild(
  builder: Builder,
  spec: string,
  request: Partial<Omit<BuildRequest, 'emit' | 'signal'>> = {},
): StartedBuild {
  const events: BuildEvent[] = [];
  const cancel = new AbortController();
  const listeners = new Set<() => void>();
  const result = builder.build(parseSpec(spec), {
    sourceDirectory: '/nonexistent',
    secrets: new Map(),
    ...request,
    emit(event) {
      events.push(event);
      for (const listener of [...listeners]) listener();
    },
    signal: cancel.signal,
  });
  result.catch(() => undefined); // whoever awaits it hears of it
  return {
    events,
    result,
    async said(text) {
      const hasText = () => logOf(events).some((line) => line[1].includes(text));
      const heard = new Promise<void>((resolve) => {
        const listener = () => {
          if (!hasText()) return;
          listeners.delete(listener);
          resolve();
        };
        listeners.add(listener);
        listener();
      });
      const ended = result.then((end) => {
        if (!hasText()) throw new Error(`the build ended ${end.status} and did not say ${text}`);
      });
      await Promise.race([heard, ended]);
    },
    cancel: () => cancel.abort(),
  };
}
