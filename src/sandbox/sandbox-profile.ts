import type { EnteredStep } from './host-system.ts';

/** The directories in which a step may write, by the names that the profile has for them. */
const writable = ['HOME', 'PREFIX', 'TMPDIR', 'DARWIN_USER_DIR'] as const;

export type WritableDirectories = Readonly<Record<(typeof writable)[number], string>>;

const subpaths = writable.map((name) => `(subpath (param "${name}"))`).join(' ');

/**
 * What sandbox-exec holds a step to: it writes nowhere else than in its own directories and to the usual devices. ps, which is set-uid
 * root, could otherwise not be started.
 */
const base = `(version 1)
(allow default)
(deny file-write*)
(allow file-write* ${subpaths})
(allow file-write* (literal "/dev/null") (literal "/dev/zero") (literal "/dev/tty") (literal "/dev/ptmx")
  (literal "/dev/stdout") (literal "/dev/stderr") (literal "/dev/dtracehelper")
  (regex #"^/dev/fd/[0-9]+$") (regex #"^/dev/ttys[0-9]+$"))
(allow process-exec (literal "/bin/ps") (with no-sandbox))
`;

/** Sockets of its own are not the network. */
const withoutNetwork = `(deny network*)
(allow network-bind network-inbound network-outbound ${subpaths})
`;

/**
 * The argv, up to the command, that confines it. Directories are given by their physical paths, as the kernel compares them, and as
 * parameters: no path is ever part of the profile's text.
 */
export function sandboxExec(
  directories: WritableDirectories,
  { network }: Pick<EnteredStep, 'network'>,
): string[] {
  const profile = network.includes('host') ? base : base + withoutNetwork;
  const parameters = writable.flatMap((name) => ['-D', `${name}=${directories[name]}`]);
  return ['/usr/bin/sandbox-exec', '-p', profile, ...parameters];
}
