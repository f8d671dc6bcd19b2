import { ObuilderError } from '../../src/errors.ts';
import type { CommandRunner } from '../../src/os/exec.ts';

/** What a command prints and ends with: exit status 0 and nothing unless it is told. */
export interface RecordedAnswer {
  readonly stdout?: string;
  readonly exitCode?: number;
}

/** Answers commands of another system as that was recorded to answer, and keeps their argvs in order. */
export class RecordedCommands {
  readonly argvs: string[][] = [];
  readonly #answers: Map<string, RecordedAnswer[]>;

  /** By the beginning of a command line, the answers in turn; the last one stays. Other commands print nothing and end well. */
  constructor(answers: Readonly<Record<string, readonly RecordedAnswer[]>>) {
    this.#answers = new Map(Object.entries(answers).map(([line, given]) => [line, [...given]]));
  }

  readonly run: CommandRunner = (argv, options) => {
    this.argvs.push([...argv]);
    const { stdout = '', exitCode = 0 } = this.#answerTo(argv.join(' '));
    if ((options?.okCodes ?? [0]).includes(exitCode))
      return Promise.resolve({ exitCode, stdout, stderr: '' });
    const message = `${argv.join(' ')}: ended with exit status ${exitCode}`;
    return Promise.reject(new ObuilderError('COMMAND_FAILED', message));
  };

  /** The command lines since the last call. */
  taken(): string[] {
    return this.argvs.splice(0).map((argv) => argv.join(' '));
  }

  #answerTo(line: string): RecordedAnswer {
    const [, answers = []] = [...this.#answers].find(([start]) => line.startsWith(start)) ?? [];
    return (answers.length > 1 ? answers.shift() : answers[0]) ?? {};
  }
}
