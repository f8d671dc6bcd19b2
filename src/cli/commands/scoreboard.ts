import { resolve } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { checkRoot, parseSubdirectory } from '../../fs/prefix-path.ts';
import { clearScoreboardEntry, listScoreboard, setScoreboardEntry } from '../../fs/scoreboard.ts';
import { ObuilderError } from '../../errors.ts';
import { jsonOption, onePath } from '../common-options.ts';

interface ScoreboardArguments {
  scoreboard: string;
}

const scoreboardOption = {
  type: 'string',
  requiresArg: true,
  demandOption: true,
  describe: 'Root’s directory of links UID -> DIRECTORY',
  coerce: onePath('scoreboard'),
} as const;

export const scoreboardCommand: CommandModule = {
  command: 'scoreboard <command>',
  describe: 'List or change who sees what; a mount that serves follows at once',
  builder: (yargs: Argv) =>
    yargs
      .command(listCommand)
      .command(setCommand)
      .command(clearCommand)
      .demandCommand(1, 'name one of list, set, clear')
      .example('$0 scoreboard set 7000 /srv/trees/anna --scoreboard S', 'uid 7000 sees /srv/trees/anna/local')
      .example('$0 scoreboard list --scoreboard S', 'who sees what, and why not'),
  handler: () => undefined,
};

const listCommand: CommandModule<object, ScoreboardArguments & { json: boolean; subdir: string }> = {
  command: 'list',
  describe: 'List the entries, and why one cannot be used',
  builder: (yargs) =>
    yargs
      .option('scoreboard', scoreboardOption)
      .option('subdir', {
        type: 'string',
        requiresArg: true,
        default: 'local',
        describe: 'The tree in an entry’s directory',
      })
      .option('json', jsonOption)
      .example('$0 scoreboard list --scoreboard S', 'the entries of S'),
  handler: (argv) => {
    const entries = listScoreboard(argv.scoreboard, parseSubdirectory(argv.subdir));
    if (argv.json) {
      console.log(JSON.stringify({ scoreboard: argv.scoreboard, entries }, undefined, 2));
      return;
    }
    for (const { name, target, problem } of entries) {
      console.log(`${name} -> ${target}${problem === undefined ? '' : `  (${problem})`}`);
    }
  },
};

const setCommand: CommandModule<object, ScoreboardArguments & { uid: string; dir: string }> = {
  command: 'set <uid> <dir>',
  describe: 'Let a uid (or default: uids without an entry) see the tree of a directory',
  builder: (yargs) =>
    yargs
      .positional('uid', { type: 'string', demandOption: true, describe: 'A uid, or default' })
      .positional('dir', {
        type: 'string',
        demandOption: true,
        describe: 'The directory that holds the tree',
      })
      .option('scoreboard', scoreboardOption)
      .example(
        '$0 scoreboard set 7000 /srv/trees/anna --scoreboard S',
        'uid 7000 sees /srv/trees/anna/local',
      ),
  handler: (argv) => {
    checkRoot('changing a scoreboard');
    setScoreboardEntry(argv.scoreboard, argv.uid, resolve(argv.dir));
    const entry = listScoreboard(argv.scoreboard, '').find(({ name }) => name === argv.uid);
    if (entry?.problem !== undefined)
      console.error(`obuilder-fs: warning: entry ${entry.name}: ${entry.problem}`);
  },
};

const clearCommand: CommandModule<object, ScoreboardArguments & { uid: string }> = {
  command: 'clear <uid>',
  describe: 'Remove an entry; its uid sees the covered directory from now on',
  builder: (yargs) =>
    yargs
      .positional('uid', { type: 'string', demandOption: true, describe: 'A uid, or default' })
      .option('scoreboard', scoreboardOption)
      .example('$0 scoreboard clear 7000 --scoreboard S', 'uid 7000 sees what everybody sees'),
  handler: (argv) => {
    checkRoot('changing a scoreboard');
    if (clearScoreboardEntry(argv.scoreboard, argv.uid)) return;
    throw new ObuilderError('NO_ENTRY', `scoreboard ${argv.scoreboard} has no entry ${argv.uid}`, {
      hint: 'see: obuilder-fs scoreboard list',
    });
  },
};
