/** A command line that does not parse: nothing was done. */
export class UsageError extends Error {}

interface Worded {
  readonly one: string;
  readonly other: string;
}

const both = (text: string): Worded => ({ one: text, other: text });

/** What yargs says to a wrong command line, in words that tell what to type. */
export const usageStrings: Record<string, string | Worded> = {
  'Not enough non-option arguments: got %s, need at least %s': both(
    'an operand is missing (%s given, at least %s needed)',
  ),
  'Too many non-option arguments: got %s, maximum of %s': both(
    'too many operands (%s given, at most %s taken)',
  ),
  'Missing required argument: %s': {
    one: 'this option is needed: --%s',
    other: 'these options are needed: %s',
  },
  'Unknown argument: %s': { one: 'unknown option or operand: %s', other: 'unknown options or operands: %s' },
  'Unknown command: %s': { one: 'unknown command: %s', other: 'unknown commands: %s' },
  'Did you mean %s?': 'no such command; did you mean %s?',
  'Not enough arguments following: %s': 'a value is needed after --%s',
  'Invalid values:': 'not one of the values it takes:',
  'Argument: %s, Given: %s, Choices: %s': '--%s=%s (it takes %s)',
};

/**
 * The error with what to type instead. `commands` are yargs' descriptions of the commands, such as `mount <prefix..>`; the words
 * of the command line tell which of them was meant.
 */
export function usageError(
  message: string,
  words: readonly string[],
  commands: readonly (string | readonly string[] | undefined)[],
): UsageError {
  const [line = ''] = commands
    .filter((command) => typeof command === 'string')
    .filter((command) => command.split(' ')[0] === words.find((word) => !word.startsWith('-')));
  const [name] = line.split(' ');
  const usage = line === '' ? 'obuilder-fs <command>' : `obuilder-fs ${line}`;
  const help = `obuilder-fs ${name === undefined || name === '' ? '' : `${name} `}--help`;
  return new UsageError(
    `${message.trim().replaceAll(/\s*\n\s*/g, ' ')}; usage: ${usage} [options] (${help} tells more)`,
  );
}
