/** A source is no S-expression, or not the one expected: `message` says why, and it shows from byte `offset` to before byte `end`. */
export class SexpError extends Error {
  override readonly name = 'SexpError';
  readonly offset: number;
  readonly end: number;
  readonly hint: string;

  constructor({ offset, end = offset + 1 }: { offset: number; end?: number }, message: string, hint: string) {
    super(message);
    this.offset = offset;
    this.end = end;
    this.hint = hint;
  }
}
