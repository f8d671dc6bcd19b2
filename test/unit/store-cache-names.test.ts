import { describe, expect, it } from 'vitest';
import { escapeCacheName } from '../../src/store/store-layout.ts';
import { vectors } from '../helpers/vectors.ts';

describe('names of caches on disk', () => {
  it.each(vectors.cache_ids)('%j is %s', (name, escaped) => {
    expect(escapeCacheName(name)).toBe(escaped);
  });
});
