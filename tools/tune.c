/* heed tune: measures the machine and writes the file that contexts read. */
#define _GNU_SOURCE
#include "tune.h"

#include "options.h"
#include "text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEY_DRY_RUN = 0x4000, KEY_SECONDS };

typedef struct arguments {
    bool dry_run;
    double seconds;
    const char *output;
    tool_options_t options;
} arguments_t;

/* ---- the file -------------------------------------------------------------------------------- */

/* Makes the folders of a path; those that are there stay as they are. */
static bool make_folders(const char *path)
{
    char folder[1024];

    snprintf(folder, sizeof folder, "%s", path);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, 0700) && errno != EEXIST) {
            tool_fail("%s: cannot be made: %s", folder, strerror(errno));
            return false;
        }
        *slash = '/';
    }
    return true;
}

static void print_file(FILE *to, const heed_device_info_t *cpu, const heed_peaks_t *peaks)
{
    fprintf(to, "heed-tune 1\nversion %s\ncpu %s\nthreads %d\nregion %.0f %.0f\n", heed_version(),
            cpu->name, (int)peaks->threads, peaks->region_ns, peaks->region_thread_ns);
#define PRINT(field, unit, about) \
    if (peaks->field.one > 0)     \
        fprintf(to, "%s %.0f %.0f\n", #field, peaks->field.one, peaks->field.all);
    HEED_RATE_LIST(PRINT)
#undef PRINT
}

bool tune_write(const char *path, const heed_device_info_t *cpu, const heed_peaks_t *peaks)
{
    char temporary[1024];
    int file = -1;

    if (!make_folders(path))
        return false;
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    file = mkstemp(temporary);
    FILE *to = file < 0 ? NULL : fdopen(file, "w");
    if (!to) {
        tool_fail("%s: cannot be written: %s", temporary, strerror(errno));
        return false;
    }
    print_file(to, cpu, peaks);
    bool good = !ferror(to) && !fflush(to) && !fsync(file) && !fchmod(file, 0644);
    good = !fclose(to) && good;
    if (good && !rename(temporary, path))
        return true;
    tool_fail("%s: cannot be written: %s", path, strerror(errno));
    unlink(temporary);
    return false;
}

/* ---- the command ----------------------------------------------------------------------------- */

static void show_progress(const char *what)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K%s%s", *what ? "measuring " : "", what);
}

static void print_peaks(const heed_peaks_t *peaks)
{
    char first[TOOL_NUMBER_SIZE], more[TOOL_NUMBER_SIZE];

    printf("%-14s %12s %12s\n", "", "1 thread", peaks->threads > 1 ? "all threads" : "");
#define PRINT(field, unit, about)                                                \
    if (peaks->field.one > 0)                                                    \
        printf("%-14s %12.1f %12.1f %-8s %s\n", #field, peaks->field.one * 1e-9, \
               peaks->field.all * 1e-9, unit, about);
    HEED_RATE_LIST(PRINT)
#undef PRINT
    if (peaks->threads > 1)
        printf("a team of two starts in %s, each thread more takes %s\n",
               tool_time(peaks->region_ns, first), tool_time(peaks->region_thread_ns, more));
}

static const struct argp_option options[] = {
    {"dry-run", KEY_DRY_RUN, 0, 0, "measure and print, write nothing", 0},
    {"seconds", KEY_SECONDS, "S", 0, "measure each of some 40 figures for S seconds (default: 0.4)",
     0},
    {"output", 'o', "FILE", 0, "write to FILE, an absolute path, instead", 0},
    {0},
};

static const char doc[] =
    "Measures what the CPU reaches: multiply-adds, bf16 dot products, reading and copying in each "
    "cache and in memory, with one thread and with all, and what a team of threads costs to start. "
    "Writes it to a small file, $XDG_CACHE_HOME/heed/CPU-VERSION.txt or ~/.cache/heed/..., that "
    "contexts read when they are created, so that predictions of `heed bench` and the choice of "
    "auto fit the machine. Takes about 20 seconds; let nothing else run. HEED_TUNE_FILE names "
    "another file, `heed info` says which is in use."
    "\v"
    "Examples:\n"
    "  heed tune\n"
    "  heed tune --dry-run\n"
    "  heed tune -o /etc/heed.txt; HEED_TUNE_FILE=/etc/heed.txt heed info\n\n"
    "Without the file built-in assumptions serve. Delete it to be back there.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->options;
        return 0;
    case KEY_DRY_RUN:
        to->dry_run = true;
        return 0;
    case KEY_SECONDS:
        if (!tool_parse_double(arg, &to->seconds) || !(to->seconds >= 0 && to->seconds <= 60))
            argp_error(state, "--seconds takes a number from 0 to 60, not \"%s\"", arg);
        return 0;
    case 'o':
        if (arg[0] != '/' || strlen(arg) > 500)
            argp_error(state, "--output takes an absolute path, not \"%s\"", arg);
        to->output = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Measures before it looks where to write: with --dry-run there need not be such a place. */
static int tune(heed_context_t *context, const arguments_t *arguments)
{
    const char *path = arguments->output ? arguments->output : heed_tune_file(context);
    heed_device_info_t cpu = {.struct_size = sizeof cpu};
    heed_peaks_t peaks;

    if (heed_device_info(context, 0, &cpu))
        return tool_fail("%s", heed_last_error());
    if (!arguments->dry_run && !path[0])
        return tool_fail("there is no place for the file: neither XDG_CACHE_HOME nor HOME is an "
                         "absolute path, or HEED_TUNE_FILE is none; give --output");
    if (!tune_measure(&cpu, arguments->seconds, show_progress, &peaks))
        return TOOL_FAILED;
    print_peaks(&peaks);
    if (arguments->dry_run)
        return TOOL_OK;
    if (!tune_write(path, &cpu, &peaks))
        return TOOL_FAILED;
    printf("written to %s\n", path);
    return TOOL_OK;
}

int cmd_tune(int argc, char **argv)
{
    arguments_t arguments = {.seconds = 0.4};
    const struct argp_child children[] = {{&tool_options_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse, NULL, doc, children, NULL, NULL};

    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return TOOL_USAGE;
    heed_context_t *context = tool_context(&arguments.options);
    if (!context)
        return TOOL_FAILED;
    int code = tune(context, &arguments);
    heed_context_destroy(context);
    return code;
}
