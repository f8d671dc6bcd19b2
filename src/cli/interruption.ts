/** Aborted by the first Ctrl-C, SIGTERM or SIGHUP: what is under way is stopped and everything is given back. */
export function interruption(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => controller.abort());
  return controller.signal;
}
