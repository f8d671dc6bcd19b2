import pc from 'picocolors';
import type { BuildEvent } from '../builder/build-event.ts';
import { createTerminalFilter, terminalText, type TerminalFilter } from './terminal-text.ts';

/** Where a build's words go: the log to `out`, as OBuilder prints it; how far it is and how long it took to `progress`. */
export interface BuildOutput {
  readonly out: NodeJS.WritableStream & { isTTY?: boolean };
  readonly progress: NodeJS.WritableStream & { isTTY?: boolean };
}

const STATUS_COLOURS = { built: 'green', cached: 'cyan', failed: 'red', cancelled: 'yellow' } as const;

/** A listener that prints events as they come. Colours only on a terminal, which is shown only text of the spec's and the steps'. */
export function createBuildPrinter({ out, progress }: BuildOutput): (event: BuildEvent) => void {
  const colours = pc.createColors(pc.isColorSupported && out.isTTY === true);
  const progressColours = pc.createColors(pc.isColorSupported && progress.isTTY === true);
  const asShown = out.isTTY === true ? terminalText : (text: string) => text;
  const newFilter = (): TerminalFilter => (out.isTTY === true ? createTerminalFilter() : (chunk) => chunk);
  let filter = newFilter();
  let isAtLineStart = true;

  function line(text: string): void {
    if (!isAtLineStart) out.write('\n');
    out.write(`${text}\n`);
    isAtLineStart = true;
  }

  return (event) => {
    switch (event.type) {
      case 'heading':
        line(colours.bold(colours.blueBright(asShown(event.text))));
        break;
      case 'note':
        line(colours.yellow(asShown(event.text)));
        break;
      case 'output': {
        const shown = filter(event.data);
        if (shown.length === 0) break;
        out.write(shown);
        isAtLineStart = shown.at(-1) === 0x0a;
        break;
      }
      case 'step-end': {
        const status = progressColours[STATUS_COLOURS[event.status]](event.status);
        filter = newFilter(); // what it left unfinished is not the next one's
        progress.write(`[${event.index}/${event.total}] ${status} in ${formatDuration(event.elapsedMs)}\n`);
        break;
      }
    }
  };
}

export function formatDuration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}
