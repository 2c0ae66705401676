#define _GNU_SOURCE
#include "crash.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

static char note[1024];

static void write_note(void)
{
    /* Nothing can be done about a write that fails here. */
    ssize_t written = write(STDERR_FILENO, note, strlen(note));
    (void)written;
}

#if defined(SANITIZED)

/* Sanitizers tell of signals themselves, and call this before they end the program. */
void __sanitizer_set_death_callback(void (*callback)(void));

void kit_crash_watch(void)
{
    __sanitizer_set_death_callback(write_note);
}

#else

static void on_signal(int number)
{
    write_note();
    raise(number); /* SA_RESETHAND: this time it kills */
}

void kit_crash_watch(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
}

#endif

void kit_crash_note(const char *line)
{
    snprintf(note, sizeof(note), "%s", line);
}
