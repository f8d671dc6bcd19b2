import type { Argv, CommandModule } from 'yargs';
import { ObuilderError } from '../../errors.ts';
import { bufferOf } from '../../spec/byte-string.ts';
import { dockerfileOf, type DockerfileStyle } from '../../spec/dockerfile.ts';
import { readSpec } from '../spec-inputs.ts';

interface DockerfileArguments {
  spec: string | undefined;
  f: string | undefined;
  buildkit: boolean;
  escape: DockerfileStyle;
}

export const dockerfileCommand: CommandModule<object, DockerfileArguments> = {
  command: 'dockerfile [spec]',
  describe: 'Print the Dockerfile that does what a spec does',
  builder: (yargs) =>
    (yargs as Argv<DockerfileArguments>)
      .positional('spec', { type: 'string', describe: 'The spec; - reads standard input' })
      .nargs('spec', 1) // or yargs takes "-" for the start of an option
      .option('f', {
        alias: 'file',
        type: 'string',
        requiresArg: true,
        describe: 'The spec, as OBuilder takes it',
      })
      .option('buildkit', {
        type: 'boolean',
        default: false,
        describe: 'With caches and secrets, as BuildKit mounts them; else they are left out',
      })
      .option('escape', {
        choices: ['unix', 'windows'] as const,
        requiresArg: true,
        default: 'unix' as const,
        describe: 'Whose images it is for: Windows escapes with a backquote',
      })
      .example('$0 dockerfile examples/sqlite.spec > Dockerfile', 'the spec for Docker')
      .example('$0 dockerfile --buildkit -f examples/sqlite.spec', 'with its caches, for DOCKER_BUILDKIT=1'),
  handler: ({ spec, f, buildkit, escape: style }) => {
    const dockerfile = dockerfileOf(readSpec(oneOf(spec, f)), { buildkit, style });
    process.stdout.write(Buffer.concat([bufferOf(dockerfile), EMPTY_LINE])); // as OBuilder prints it
  },
};

const EMPTY_LINE = Buffer.from('\n');

function oneOf(spec: string | undefined, f: string | undefined): string {
  const [file, second] = [spec, f].flat().filter((given) => given !== undefined);
  if (file !== undefined && second === undefined) return file;
  const problem = file === undefined ? 'a spec is needed' : `${file} and ${second ?? ''}: one spec at a time`;
  throw new ObuilderError('BAD_USAGE', `dockerfile: ${problem}`, {
    hint: 'usage: obuilder-fs dockerfile [--buildkit] FILE',
  });
}
