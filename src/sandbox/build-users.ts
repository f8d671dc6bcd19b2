import { ObuilderError } from '../errors.ts';

/** An account that runs steps and nothing else, e.g. `mac705`. */
export interface BuildUser {
  readonly uid: number;
  readonly gid: number;
  readonly name: string;
  readonly homePath: string;
}

/**
 * The accounts of build users. Ours are told by their full name, so an account that somebody made for a person is never used,
 * changed or removed. Safe for several processes at once.
 */
export interface BuildUsers {
  /** Every account that is ours, by its full name, the lowest uid first. */
  list(): Promise<BuildUser[]>;

  /**
   * The build user with this uid; undefined when no account has it.
   * @throws {ObuilderError} NOT_A_BUILD_USER when the account is not ours, or the uid is the system's.
   */
  find(uid: number): Promise<BuildUser | undefined>;

  /**
   * The build user with this uid, made where missing, with the home path these users share.
   * @throws {ObuilderError} NOT_A_BUILD_USER as `find`; NAME_TAKEN when another account or group has its name or id.
   */
  ensure(uid: number): Promise<BuildUser>;

  /** Removes the account and its group; without one, nothing. Its processes must be gone. Throws as `find`. */
  remove(uid: number): Promise<void>;
}

/** The full name that marks an account as ours. */
export const buildUserFullName = 'obuilder-fs build user';

/** Below it both systems keep their own accounts (macOS up to 499), and ending "all processes of the uid" would end the machine. */
const uidMin = 500;

export function buildUserName(uid: number): string {
  return `mac${uid}`;
}

export function isSystemUid(uid: number): boolean {
  return uid < uidMin;
}

/** @throws {ObuilderError} NOT_A_BUILD_USER for root, a system uid or what is no uid at all. */
export function refuseSystemUid(uid: number): void {
  if (Number.isInteger(uid) && !isSystemUid(uid) && uid < 2 ** 31) return;
  throw new ObuilderError('NOT_A_BUILD_USER', `uid ${uid}: not for a build user, the system keeps it`, {
    hint: `choose another --uid, ${uidMin} or above`,
  });
}

/** @throws {ObuilderError} NOT_A_BUILD_USER unless the account's full name is ours. */
export function refuseForeignAccount(account: { uid: number; name: string; fullName: string }): void {
  if (account.fullName === buildUserFullName) return;
  const fullName = account.fullName && ` ("${account.fullName}")`;
  throw new ObuilderError(
    'NOT_A_BUILD_USER',
    `uid ${account.uid}: belongs to the account ${account.name}${fullName}, not to a build user`,
    { hint: 'choose another --uid' },
  );
}

export function nameTaken(uid: number, cause: unknown): ObuilderError {
  const name = buildUserName(uid);
  return new ObuilderError(
    'NAME_TAKEN',
    `${name}: another account or group has this name or the id ${uid}: ${(cause as Error).message}`,
    { hint: `choose another --uid, or remove the account and the group that stand in the way`, cause },
  );
}
