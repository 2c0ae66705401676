/* A line that is written to stderr if the program dies: by a signal, or by a sanitizer. */
#ifndef KIT_CRASH_H
#define KIT_CRASH_H

/* Once, before the first note. */
void kit_crash_watch(void);

/* The line to write from now on; it is copied. */
void kit_crash_note(const char *line);

#endif
