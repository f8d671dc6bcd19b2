/**
 * What a build says while it runs. Heading, note and output are OBuilder's log, byte for byte; `step-end` is for people and scripts
 * that follow along. Steps are counted over the whole spec, nested builds included: from, run and copy each are one.
 */
export type BuildEvent =
  | { readonly type: 'heading'; readonly text: string; readonly step?: { readonly index: number; readonly total: number } }
  | { readonly type: 'note'; readonly text: string }
  | { readonly type: 'output'; readonly data: Uint8Array }
  | {
      readonly type: 'step-end';
      readonly index: number;
      readonly total: number;
      readonly status: 'built' | 'cached' | 'failed' | 'cancelled';
      readonly elapsedMs: number;
    };
