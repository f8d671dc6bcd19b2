/** Exit codes of every command; `exec` answers its command's own. */
export const EXIT_OK = 0;
/** The build failed, or the machine could not do what was asked. */
export const EXIT_FAILURE = 1;
/** The command line was wrong; nothing was done. */
export const EXIT_USAGE = 2;
/** Ended by Ctrl-C, as shells tell it. */
export const EXIT_INTERRUPTED = 130;
