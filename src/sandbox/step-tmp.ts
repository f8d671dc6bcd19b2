import { chmod, chown, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../os/exec.ts';
import type { BuildUser } from './build-users.ts';

export interface StepTmp {
  readonly directory: string;
  readonly user: BuildUser;
  /**
   * For a step in namespaces, `directory` is root's alone and holds three, which they show at its TMPDIR (`own`), at /tmp (`tmp`) and at
   * /var/tmp (`var-tmp`). Any other must find its TMPDIR where it is, at `directory` itself.
   */
  readonly forNamespace: boolean;
}

/** Fresh directories for a step's temporary files, for as long as `body` takes; what a killed run left is removed first. */
export async function withTmpDirectory<T>(
  { directory, user, forNamespace }: StepTmp,
  body: (directory: string) => Promise<T>,
): Promise<T> {
  const remove = () => runCommand(['rm', '-rf', '--', directory]);
  await remove();
  await mkdir(directory, { mode: 0o700 });
  try {
    await (forNamespace ? makeThree(directory, user) : chown(directory, user.uid, user.gid));
    return await body(directory);
  } finally {
    await remove();
  }
}

async function makeThree(directory: string, user: BuildUser): Promise<void> {
  const own = join(directory, 'own');
  await mkdir(own, { mode: 0o700 });
  await chown(own, user.uid, user.gid);
  for (const name of ['tmp', 'var-tmp']) {
    await mkdir(join(directory, name));
    await chmod(join(directory, name), 0o1777); // whatever the umask
  }
}
