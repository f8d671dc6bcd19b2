import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The command that runs this program again: node and the main file beside this one. */
export function programArgv(): string[] {
  return [process.execPath, join(dirname(fileURLToPath(import.meta.url)), 'main.js')];
}
