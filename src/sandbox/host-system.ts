import type { BuildUser, BuildUsers } from './build-users.ts';
import type { StepPlaces } from './step-places.ts';

/** What Linux and macOS each do in their own way around a step, by files and commands of the system. cli/compose.ts chooses one. */
export interface HostSystem {
  readonly users: BuildUsers;

  /** Whether each step gets namespaces of its own, in which it leaves nothing behind. Without, it is entered by `entry`. */
  readonly hasNamespaces: boolean;

  /**
   * Kills every process of the uid, whoever starts them again included, and answers when none is left. The caller has claimed the uid.
   * @throws {ObuilderError} PROCESSES_REMAIN when some cannot be killed, NOT_A_BUILD_USER for a uid of the system's.
   */
  endProcessesOf(uid: number): Promise<void>;

  /**
   * Removes what the user has left on the machine outside of its home: files where everybody may write, its crontab and at jobs, System V
   * objects. Its processes are gone. Never follows a link and never removes what belongs to somebody else.
   */
  clearLeftovers(user: BuildUser): Promise<void>;

  /** The PATH that a login starts with. */
  loginPath(): Promise<string>;

  /** How steps of the user are entered where there are no namespaces: the argv that gives a login shell of the user these arguments. */
  entry(user: BuildUser, step: EnteredStep): Promise<(login: readonly string[]) => string[]>;

  /** The argv that runs a command as the user. Nothing of its home is read on the way. */
  asUser(user: BuildUser, argv: readonly string[]): string[];
}

export interface EnteredStep {
  readonly places: StepPlaces;
  /** StepCommand.network */
  readonly network: readonly string[];
}

/**
 * `su` is the argv of the system's own, up to the user's name. Bash alone would read ~/.bashrc where its input is a socket, as it is of whatever
 * Node starts.
 */
export function suCommand(su: readonly string[], argv: readonly string[]): string[] {
  return [...su, '--norc', '-c', '--', 'exec "$@"', 'obuilder-fs-as-user', ...argv];
}
