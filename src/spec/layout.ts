/**
 * How a box lays out its breaks:
 * - `horizontal`: all on one line;
 * - `vertical`: each is a new line;
 * - `all-or-none`: each is a new line, unless the whole box fits the line;
 * - `packed`: a new line where the next piece does not fit, or where it leads back to the left.
 */
export type BoxKind = 'horizontal' | 'vertical' | 'all-or-none' | 'packed';

const MARGIN = 78;
/** No box is opened, and no line indented, further right than this. */
const INDENT_MAX = 68;
/** Placed pieces are dropped from the queue this many at a time. */
const QUEUE_TRIM = 1024;

interface Piece {
  readonly kind: 'text' | 'break' | 'newline' | 'open' | 'close';
  readonly text: string;
  readonly box?: BoxKind | 'root';
  readonly indent: number;
  /** Column in the stream of pieces where it starts. */
  readonly start: number;
  /** How much room it asks for: an opening, to the end of its box; a break, to the end of the next one or of its box. */
  size: number | undefined;
}

interface OpenBox {
  readonly kind: BoxKind | 'root' | 'fitting';
  /** Column that its new lines start at. */
  readonly column: number;
}

/**
 * Lays text out in lines the way OCaml's standard formatter does by default (margin 78), because OBuilder's logs and files are written
 * by it. A piece is placed as soon as its size is known or what is pending overflows the line, as that formatter does; doing it later,
 * with all sizes known, would differ by one column at the margin.
 */
export class Layout {
  readonly #output: string[] = [];
  readonly #queue: Piece[] = [];
  #placed = 0;
  #streamed = 0;
  /** Pieces whose size is not known yet, innermost last. */
  readonly #unsized: Piece[] = [];
  readonly #boxes: OpenBox[] = [];
  #column = 0;
  #lineIndent = 0;
  #isNewLine = true;

  constructor() {
    this.#enqueue('open', '', 0, 'root');
  }

  text(text: string): void {
    if (text === '') return;
    this.#enqueue('text', text, 0);
    this.#placePieces();
  }

  /** A place where the line may end; `width` spaces (0 or 1) where it does not. */
  break(width: 0 | 1): void {
    const previous = this.#unsized.at(-1)?.kind === 'break' ? this.#unsized.pop() : undefined;
    this.#enqueue('break', ' '.repeat(width), 0);
    if (previous !== undefined) previous.size ??= this.#streamed - previous.start;
  }

  /** The line ends here whatever the box. */
  newline(): void {
    this.#enqueue('newline', '', 0);
    this.#placePieces();
  }

  open(box: BoxKind, indent = 0): void {
    this.#enqueue('open', '', indent, box);
  }

  close(): void {
    this.#enqueue('close', '', 0);
    this.#sizeInnermost('break');
    this.#sizeInnermost('open');
  }

  finish(): string {
    for (const piece of this.#unsized) piece.size = Infinity;
    this.#streamed = Infinity;
    this.#placePieces();
    return this.#output.join('');
  }

  #enqueue(kind: Piece['kind'], text: string, indent: number, box?: BoxKind | 'root'): void {
    const isSized = kind !== 'open' && kind !== 'break';
    const piece: Piece = {
      kind,
      text,
      indent,
      start: this.#streamed,
      size: isSized ? text.length : undefined,
      ...(box === undefined ? {} : { box }),
    };
    this.#queue.push(piece);
    this.#streamed += text.length;
    if (!isSized) this.#unsized.push(piece);
  }

  #sizeInnermost(kind: 'break' | 'open'): void {
    const innermost = this.#unsized.at(-1);
    if (innermost?.kind !== kind) return;
    innermost.size ??= this.#streamed - innermost.start;
    this.#unsized.pop();
  }

  #placePieces(): void {
    for (let piece = this.#queue[this.#placed]; piece !== undefined; piece = this.#queue[this.#placed]) {
      if (piece.size === undefined) {
        if (this.#streamed - piece.start < this.#room()) break;
        piece.size = Infinity;
      }
      this.#place(piece, piece.size);
      this.#placed++;
    }
    if (this.#placed < QUEUE_TRIM) return;
    this.#queue.splice(0, this.#placed);
    this.#placed = 0;
  }

  #place(piece: Piece, size: number): void {
    switch (piece.kind) {
      case 'text':
        this.#write(piece.text);
        this.#isNewLine = false;
        break;
      case 'open':
        this.#placeOpen(piece, size);
        break;
      case 'close':
        this.#boxes.pop();
        break;
      case 'newline':
        this.#startLine(this.#boxes.at(-1)?.column ?? 0);
        break;
      case 'break':
        this.#placeBreak(piece, size);
        break;
    }
  }

  #placeOpen(piece: Piece, size: number): void {
    const outer = this.#boxes.at(-1);
    if (this.#column > INDENT_MAX && outer !== undefined && outer.column < this.#column) {
      if (outer.kind !== 'fitting' && outer.kind !== 'horizontal') this.#startLine(outer.column);
    }
    const kind = piece.box ?? 'horizontal';
    const fits = kind !== 'vertical' && size <= this.#room();
    this.#boxes.push({ kind: fits ? 'fitting' : kind, column: this.#column + piece.indent });
  }

  #placeBreak(piece: Piece, size: number): void {
    const box = this.#boxes.at(-1);
    if (box !== undefined && this.#breaksLine(box, size)) this.#startLine(box.column);
    else this.#write(piece.text);
  }

  #breaksLine(box: OpenBox, size: number): boolean {
    switch (box.kind) {
      case 'fitting':
      case 'horizontal':
        return false;
      case 'vertical':
      case 'all-or-none':
        return true;
      case 'root':
        return size > this.#room();
      case 'packed':
        return !this.#isNewLine && (size > this.#room() || this.#lineIndent > box.column);
    }
  }

  #startLine(column: number): void {
    this.#lineIndent = Math.min(column, INDENT_MAX);
    this.#column = this.#lineIndent;
    this.#isNewLine = true;
    this.#output.push('\n', ' '.repeat(this.#lineIndent));
  }

  #write(text: string): void {
    this.#output.push(text);
    this.#column += text.length;
  }

  #room(): number {
    return MARGIN - this.#column;
  }
}
