import type { Argv, CommandModule } from 'yargs';
import type { Env } from '../../builder/build-context.ts';
import type { ObuilderVersion } from '../../builder/obuilder-version.ts';
import { specIds, type IdentifiedStep } from '../../builder/spec-ids.ts';
import { ObuilderError } from '../../errors.ts';
import { byteStringOf, textOf } from '../../spec/byte-string.ts';
import { printSpec, printSpecMach } from '../../spec/print-spec.ts';
import { SpecError } from '../../spec/spec-error.ts';
import { jsonOption } from '../common-options.ts';
import { EXIT_FAILURE } from '../exit-codes.ts';
import { idsOption, readContext, readSecrets, readSpec, secretOption, specFileName } from '../spec-inputs.ts';

export const specCommand: CommandModule = {
  command: 'spec <command>',
  describe: 'Check or print a spec, or tell the ids of its steps; nothing is built',
  builder: (yargs: Argv) =>
    yargs
      .command(checkCommand)
      .command(printCommand)
      .command(idCommand)
      .demandCommand(1, 'name one of check, print, id')
      .example('$0 spec check examples/sqlite.spec', 'is it one that can be built?')
      .example('$0 spec print --form=mach - < a.spec', 'on one line, as ids are made of')
      .example(
        '$0 spec id examples/sqlite.spec node_modules/better-sqlite3/deps/sqlite3',
        'why is it built again?',
      ),
  handler: () => undefined,
};

interface SpecArguments {
  file: string;
}

function withSpec<T>(yargs: Argv<T>): Argv<T & SpecArguments> {
  return yargs
    .positional('file', { type: 'string', demandOption: true, describe: 'The spec; - reads standard input' })
    .nargs('file', 1); // or yargs takes "-" for the start of an option
}

const checkCommand: CommandModule<object, SpecArguments & { json: boolean }> = {
  command: 'check <file>',
  describe: 'Say what is wrong with a spec, and where; exit 0 if nothing is, 1 if something is',
  builder: (yargs) =>
    withSpec(yargs)
      .option('json', jsonOption)
      .example('$0 spec check a.spec', 'FILE:LINE:COLUMN: what is wrong; and what to write')
      .example('$0 spec check --json - < a.spec', 'the same for an editor'),
  handler: ({ file, json }) => {
    if (json) process.exitCode = checkForPrograms(file);
    else checkForPeople(file);
  },
};

function checkForPeople(file: string): void {
  readSpec(file);
  if (process.stdout.isTTY) console.log(`${specFileName(file)}: nothing is wrong`);
}

/** What is wrong with the spec itself is an answer; a file that cannot be read is an error as everywhere. */
function checkForPrograms(file: string): number {
  try {
    readSpec(file);
    printJson({ file: specFileName(file), valid: true });
    return 0;
  } catch (error) {
    if (!(error instanceof SpecError)) throw error;
    const { message, hint, place } = error;
    printJson({ file: place.fileName, valid: false, line: place.line, column: place.column, message, hint });
    return EXIT_FAILURE;
  }
}

const printCommand: CommandModule<object, SpecArguments & { form: 'mach' | 'pretty' }> = {
  command: 'print <file>',
  describe: 'Print a spec in one of OBuilder’s forms',
  builder: (yargs) =>
    withSpec(yargs)
      .option('form', {
        choices: ['mach', 'pretty'] as const,
        requiresArg: true,
        default: 'pretty' as const,
        describe: 'mach: canonical, on one line; pretty: for people',
      })
      .example('$0 spec print a.spec', 'an operation a line')
      .example('$0 spec print --form=mach a.spec', 'two specs that print the same are the same'),
  handler: ({ file, form }) => {
    const spec = readSpec(file);
    process.stdout.write(`${form === 'mach' ? printSpecMach(spec) : printSpec(spec)}\n`);
  },
};

interface IdArguments extends SpecArguments {
  context: string | undefined;
  'image-env': string[];
  secret: string[];
  'show-secrets': boolean;
  ids: ObuilderVersion;
  json: boolean;
}

const idCommand: CommandModule<object, IdArguments> = {
  command: 'id <file> [context]',
  describe: 'Tell the ids of the steps, in the order of a build, and what each is the hash of',
  builder: (yargs) =>
    (withSpec(yargs) as unknown as Argv<IdArguments>)
      .positional('context', { type: 'string', describe: 'Directory that (copy …) copies from' })
      .option('image-env', {
        type: 'string',
        nargs: 1,
        default: [] as string[],
        describe: 'NAME=VALUE: a variable of the base images, in their order',
        coerce: (given: string | string[]) => [given].flat(),
      })
      .option('secret', secretOption)
      .option('show-secrets', {
        type: 'boolean',
        default: false,
        describe: 'Show the values of secrets, not ***; the ids are the same',
      })
      .option('ids', idsOption)
      .option('json', jsonOption)
      .example('$0 spec id a.spec src --image-env PATH=/usr/bin:/bin', 'the ids, and what they are made of')
      .example('$0 spec id a.spec src --json > today.json', 'keep it, to compare when a step is built again')
      .epilogue(
        'A copy from a nested build has no id before that is built, nor do the steps after it: they are shown without (in JSON, null).',
      ),
  handler: async (argv) => {
    const { ids, json, context } = argv;
    const spec = readSpec(argv.file);
    const steps = await specIds(spec, {
      ids,
      imageEnv: argv['image-env'].map(readVariable),
      secrets: readSecrets(argv.secret),
      showSecrets: argv['show-secrets'],
      ...(context === undefined ? {} : { sourceDirectory: readContext(context) }),
    });
    if (json) printJson(steps.map(jsonOf));
    else for (const step of steps) console.log(describeStep(step));
  },
};

function readVariable(given: string): Env[number] {
  const at = given.indexOf('=');
  if (at > 0) return [byteStringOf(given.slice(0, at)), byteStringOf(given.slice(at + 1))];
  throw new ObuilderError('BAD_OPTION', `--image-env=${given}: not NAME=VALUE`, {
    hint: 'as in --image-env PATH=/usr/bin:/bin',
  });
}

function jsonOf({ op, kind, preImage, id }: IdentifiedStep): object {
  return { op, kind, pre: preImage === undefined ? null : textOf(preImage), id: id ?? null };
}

const ID_WIDTH = 64;

/** A line with the id and the operation, then what was hashed. */
function describeStep({ op, kind, preImage, id }: IdentifiedStep): string {
  const line = `${(id ?? 'known when it is built').padEnd(ID_WIDTH)}  ${kind.padEnd(4)}  ${op}`;
  return preImage === undefined ? line : `${line}\n  ${textOf(preImage)}`;
}

function printJson(value: unknown): void {
  console.log(JSON.stringify(value, undefined, 2));
}
