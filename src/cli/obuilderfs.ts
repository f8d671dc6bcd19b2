#!/usr/bin/env node
import { resolve } from 'node:path';
import { ObuilderError } from '../errors.ts';
import { startInBackground } from '../fs/mount-supervisor.ts';
import { canonicalPrefix, checkRoot } from '../fs/prefix-path.ts';
import { createRunDirectory, prefixFiles } from '../fs/run-directory.ts';
import { mountArguments } from './commands/mount.ts';
import { stateDirOption } from './common-options.ts';
import { exitCodeOf, printError } from './print-error.ts';
import { programArgv } from './program.ts';

const USAGE = `obuilderfs SCOREBOARD PREFIX [-o OPTION[,OPTION…]]

Mounts PREFIX, returns when the mount answers, and serves it in the background: each uid N sees SCOREBOARD/N/local there.
"umount -f PREFIX" ends it. This is the original program's interface, for OBuilder v0.5; obuilder-fs mount can more.`;

interface Arguments {
  scoreboard: string;
  prefix: string;
  mountOptions: string[];
}

/** FUSE programs take their options anywhere, as `-o a,b` or `-oa,b`. */
function parseArguments(args: readonly string[]): Arguments {
  const operands: string[] = [];
  const mountOptions: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? '';
    if (arg === '-o') mountOptions.push(optionsAfter(args[++i]));
    else if (arg.startsWith('-o')) mountOptions.push(arg.slice(2));
    else if (arg.startsWith('-')) throw wrongUsage(`unknown option ${arg}`);
    else operands.push(arg);
  }
  const [scoreboard, prefix, ...rest] = operands;
  if (scoreboard === undefined || prefix === undefined || rest.length > 0) {
    throw wrongUsage('exactly a scoreboard and a prefix are needed');
  }
  return { scoreboard: resolve(scoreboard), prefix, mountOptions };
}

function optionsAfter(options: string | undefined): string {
  if (options === undefined) throw wrongUsage('-o needs mount options after it');
  return options;
}

function wrongUsage(what: string): ObuilderError {
  return new ObuilderError('BAD_USAGE', what, {
    hint: 'usage: obuilderfs SCOREBOARD PREFIX [-o OPTION,…]',
  });
}

async function mountInBackground({ scoreboard, prefix, mountOptions }: Arguments): Promise<void> {
  checkRoot('mounting');
  const stateDir = resolve(stateDirOption.default);
  const { log } = prefixFiles(createRunDirectory(stateDir), await canonicalPrefix(prefix));
  const args = mountArguments({
    prefix: [`${prefix}=local`],
    scoreboard,
    unmapped: undefined,
    cache: 'auto',
    'map-owner': false,
    backing: 'auto',
    o: mountOptions,
    'state-dir': stateDir,
  });
  await startInBackground([...programArgv(), ...args], log);
}

try {
  const args = process.argv.slice(2);
  if (args.includes('--help') || args.includes('-h')) console.log(USAGE);
  else await mountInBackground(parseArguments(args));
  process.exit(0);
} catch (error) {
  printError(error, { isVerbose: false, program: 'obuilderfs' });
  process.exit(exitCodeOf(error));
}
