/**
 * Events from whoever says them to one reader that takes its time. What was not read yet is kept; once the reader has stopped, nothing
 * is.
 */
export class EventQueue<T> implements AsyncIterableIterator<T> {
  readonly #events: T[] = [];
  #state: 'open' | 'ended' | 'dropped' = 'open';
  #failure: { readonly error: unknown } | undefined;
  #wake: () => void = () => undefined;

  push(event: T): void {
    if (this.#state !== 'open') return;
    this.#events.push(event);
    this.#wake();
  }

  end(): void {
    if (this.#state === 'open') this.#state = 'ended';
    this.#wake();
  }

  /** The reader gets what there is, then the error. */
  fail(error: unknown): void {
    this.#failure = { error };
    this.end();
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    while (this.#events.length === 0 && this.#state === 'open') {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const value = this.#events.shift();
    if (value !== undefined) return { done: false, value };
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined && this.#state === 'ended') throw failure.error;
    return { done: true, value: undefined };
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#state = 'dropped';
    this.#events.length = 0;
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
