/** What `promise` resolves to, or undefined once `signal` fires; then `late` gets what it resolves to after all. */
export async function untilAborted<T>(
  promise: Promise<T>,
  signal: AbortSignal,
  late: (value: T) => void = () => undefined,
): Promise<T | undefined> {
  let stopWaiting: () => void = () => undefined;
  const aborted = new Promise<undefined>((resolve) => (stopWaiting = () => resolve(undefined)));
  if (signal.aborted) stopWaiting();
  signal.addEventListener('abort', stopWaiting);
  try {
    const first = await Promise.race([promise.then((value) => ({ value })), aborted]);
    if (first !== undefined) return first.value;
    promise.then(late, () => undefined);
    return undefined;
  } finally {
    signal.removeEventListener('abort', stopWaiting);
  }
}
