import { describe, expect, it } from 'vitest';
import { EventQueue } from '../../src/cli/event-queue.ts';

async function read(queue: EventQueue<number>): Promise<number[]> {
  const events: number[] = [];
  for await (const event of queue) events.push(event);
  return events;
}

describe('the events of a build', () => {
  it('come in order, those from before the reader, too', async () => {
    const queue = new EventQueue<number>();
    queue.push(0);
    queue.push(1);
    const all = read(queue);
    queue.push(2);
    await Promise.resolve();
    queue.push(3);
    queue.end();
    expect(await all).toEqual([0, 1, 2, 3]);
  });

  it('end with the error, after what came before it, once', async () => {
    const queue = new EventQueue<number>();
    queue.push(1);
    queue.fail(new Error('broken'));
    expect(await queue.next()).toEqual({ done: false, value: 1 });
    await expect(queue.next()).rejects.toThrow('broken');
    expect(await queue.next()).toEqual({ done: true, value: undefined });
  });

  it('are dropped when the reader stops', async () => {
    const queue = new EventQueue<number>();
    queue.push(1);
    queue.push(2);
    for await (const event of queue) {
      expect(event).toBe(1);
      break;
    }
    queue.push(3);
    queue.fail(new Error('unheard'));
    expect(await read(queue)).toEqual([]);
  });
});
