import { errnoCode } from '../errors.ts';
import { native } from '../fs/native.ts';

interface Amount {
  readonly files: number;
  readonly bytes: number;
}

/** How far a long copy of a tree is. */
export interface CopyProgress {
  readonly done: Amount;
  readonly total: Amount;
}

/** Short copies are not worth a word, nor the look at the trees that it takes. */
const LOOK_INTERVAL_MS = 2_000;

/** Runs `copy` and tells how far `target` is, every now and then; `undefined` once it is over, if anything was told. */
export async function withCopyProgress(
  { source, target }: { readonly source: string; readonly target: string },
  tell: (progress: CopyProgress | undefined) => void,
  copy: () => Promise<void>,
): Promise<void> {
  let total: Promise<Amount> | undefined;
  let looking: Promise<void> | undefined;
  const state = { isOver: false, hasTold: false };
  const look = async () => {
    const [whole, done] = await Promise.all([(total ??= amountAt(source)), amountAt(target)]);
    if (state.isOver) return;
    state.hasTold = true;
    tell({ done, total: whole });
  };
  const timer = setInterval(() => {
    // What goes wrong with looking is no failure of the copy's.
    looking ??= look().then(
      () => (looking = undefined),
      () => (looking = undefined),
    );
  }, LOOK_INTERVAL_MS);
  try {
    await copy();
  } finally {
    state.isOver = true;
    clearInterval(timer);
    if (state.hasTold) tell(undefined);
  }
}

async function amountAt(path: string): Promise<Amount> {
  try {
    const { files, bytes } = await native().measureTree(path);
    return { files, bytes };
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return { files: 0, bytes: 0 };
    throw error;
  }
}
