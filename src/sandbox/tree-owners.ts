import { closeSync } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { errnoCode } from '../errors.ts';
import { native } from '../fs/native.ts';
import { runCommand } from '../os/exec.ts';
import { isSystemUid } from './build-users.ts';

/** Whom files belong to. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** A step's trees, shown to its build user as its own. On disk they belong to whom they belonged before, and so does what it makes. */
export interface ShownTrees {
  /** A mount namespace in which the trees are the user's, to start from; undefined where they are so in any. */
  readonly namespace: string | undefined;
  /** The namespace is not needed any more, at the latest at `close`: it holds on to all mounts of the machine. Idempotent. */
  letGo(): void;
  /** To be called once every process of the user is gone. Idempotent. */
  close(): Promise<void>;
}

export interface TreesToShow {
  readonly user: Owner;
  /** Private to the step: no file of them is another tree's too. */
  readonly trees: readonly string[];
  /** Whom the trees are given that belong to the system: nobody is ever shown as it. */
  resultOwner(): Promise<Owner>;
  /** Whether everything that shows the trees to the user maps their owners, too. */
  readonly mayMap: boolean;
}

/**
 * Where the kernel can, by idmapped mounts: nothing on disk is touched. Elsewhere the trees are given to the user for the step, and back
 * afterwards.
 */
export async function showTrees({ user, trees, mayMap, ...rest }: TreesToShow): Promise<ShownTrees> {
  const owned = await Promise.all(trees.map((path) => ownedTree(path, rest)));
  const foreign = owned.filter(({ owner }) => owner.uid !== user.uid);
  if (foreign.length === 0) return shownAnywhere;
  const mapped = mayMap ? await showMapped(user, foreign) : undefined;
  return mapped ?? (await showGiven(user, foreign));
}

const shownAnywhere: ShownTrees = {
  namespace: undefined,
  letGo: () => undefined,
  close: () => Promise.resolve(),
};

interface OwnedTree {
  readonly path: string;
  readonly owner: Owner;
}

async function ownedTree(
  path: string,
  { resultOwner }: Pick<TreesToShow, 'resultOwner'>,
): Promise<OwnedTree> {
  const { uid, gid } = await lstat(path);
  if (!isSystemUid(uid)) return { path, owner: { uid, gid } };
  const owner = await resultOwner();
  await give(path, { uid, gid }, owner);
  return { path, owner };
}

/** Undefined where the kernel, the file system or the machine's settings do not allow it. */
async function showMapped(user: Owner, trees: readonly OwnedTree[]): Promise<ShownTrees | undefined> {
  const mapped = trees.map(({ path, owner }) => ({
    path,
    ...{ storedUid: owner.uid, storedGid: owner.gid, shownUid: user.uid, shownGid: user.gid },
  }));
  try {
    const descriptor = await native().openMappedNamespace(mapped);
    let isOpen = true;
    const letGo = () => {
      if (isOpen) closeSync(descriptor);
      isOpen = false;
    };
    return {
      namespace: `/proc/${process.pid}/fd/${descriptor}`,
      letGo,
      close() {
        letGo();
        return Promise.resolve();
      },
    };
  } catch (error) {
    if (unmappable.has(errnoCode(error) ?? '')) return undefined;
    throw error;
  }
}

const unmappable = new Set(['EINVAL', 'ENOSYS', 'EOPNOTSUPP', 'EPERM', 'ENOSPC']);

async function showGiven(user: Owner, trees: readonly OwnedTree[]): Promise<ShownTrees> {
  const given: OwnedTree[] = [];
  const close = async () => {
    for (let tree = given.pop(); tree !== undefined; tree = given.pop())
      await give(tree.path, user, tree.owner);
  };
  try {
    for (const tree of trees) {
      given.push(tree);
      await give(tree.path, tree.owner, user);
    }
    return { ...shownAnywhere, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function give(tree: string, from: Owner, to: Owner): Promise<void> {
  await runCommand(giveCommand(tree, from, to));
}

/** Only what belonged to `from`: what others own in a tree stays theirs. Set-id bits go with the owner, all other modes stay. */
export function giveCommand(tree: string, from: Owner, to: Owner, platform = process.platform): string[] {
  const owner = `${to.uid}:${to.gid}`;
  if (platform === 'linux') return ['chown', '-R', '-h', '-P', `--from=${from.uid}`, owner, tree];
  return ['find', '-x', tree, '-user', String(from.uid), '-exec', 'chown', '-h', owner, '{}', '+'];
}
