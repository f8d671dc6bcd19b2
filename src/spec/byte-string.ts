declare const byteString: unique symbol;

/**
 * A string of bytes, one per character (U+0000–U+00FF), as OCaml's strings are. Specs, file names and what is hashed are bytes;
 * only the brand tells them from text, so convert at the border with the two functions below.
 */
export type ByteString = string & { readonly [byteString]: true };

/** The bytes of a text (UTF-8) or of a buffer. */
export function byteStringOf(source: string | Uint8Array): ByteString {
  const buffer = typeof source === 'string' ? Buffer.from(source, 'utf8') : Buffer.from(source);
  return buffer.toString('latin1') as ByteString;
}

export function bufferOf(bytes: ByteString): Buffer {
  return Buffer.from(bytes, 'latin1');
}

/** The text that the bytes encode in UTF-8; bytes that are no UTF-8 become U+FFFD. */
export function textOf(bytes: ByteString): string {
  return bufferOf(bytes).toString('utf8');
}
