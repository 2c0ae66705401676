/* Reads the file that `heed tune` writes, once for each context. Lines are a word and one or two
 * whole numbers:
 *
 *     heed-tune 1
 *     version 0.1.0
 *     cpu AMD EPYC 9654 96-Core Processor
 *     threads 96
 *     region 4200 35                       nanoseconds: a team of two, each thread more
 *     f32_avx2 102000000000 9600000000000  units a second of one thread, of all
 *
 * and so on, one line for each rate of heed_peaks_t that the machine has; an assumption serves for
 * what is left out. Whatever is not like that makes the whole file unusable: the worst that a
 * hostile file can do is to have a slower implementation chosen. */
#define _GNU_SOURCE
#include "internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_BYTES = 8192 };

/* The words of lines. */
enum {
#define WORD(field, unit, about) RATE_##field,
    HEED_RATE_LIST(WORD)
#undef WORD
        THREADS,
    REGION
};

/* Numbers beyond these are no rate of any machine, and no time. */
static const int64_t least_rate = 1000000, most_rate = 10000000000000000;
static const int64_t most_ns = 1000000000;

typedef struct reader {
    const char *file;
    char *why;
    size_t why_size;
    int line;
} reader_t;

HD_PRINTF(2, 3) static bool refuse(const reader_t *reader, const char *format, ...)
{
    va_list args;
    char sentence[192];
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    hd_text_t text = hd_text(reader->why, reader->why_size);
    hd_text_add(&text, "%s", reader->file);
    if (reader->line)
        hd_text_add(&text, " line %d:", reader->line);
    hd_text_add(&text, " %s", sentence);
    return false;
}

void hd_tune_default(const char *cpu, char *path, size_t size)
{
    const char *cache = secure_getenv("XDG_CACHE_HOME"), *home = secure_getenv("HOME");
    hd_text_t text = hd_text(path, size);
    path[0] = '\0';
    /* The base directory specification: what is no absolute path counts as not set. */
    if (cache && cache[0] == '/')
        hd_text_add(&text, "%s/heed/", cache);
    else if (home && home[0] == '/')
        hd_text_add(&text, "%s/.cache/heed/", home);
    else
        return;
    for (const char *from = cpu; *from; from++)
        if (isalnum((unsigned char)*from))
            hd_text_add(&text, "%c", tolower((unsigned char)*from));
        else if (text.length < size && path[text.length - 1] != '-')
            hd_text_add(&text, "-");
    hd_text_add(&text, "-%s.txt", heed_version());
    if (text.length >= size)
        path[0] = '\0';
}

/* ---- assumptions ----------------------------------------------------------------------------- */

/* 3 GHz, two units for multiply-adds, a share of 10 GB/s of memory for each of some cores. The bf16
 * dot product is twice as fast as multiply-adds of f32 on Zen, and half as fast on the Intel cores
 * that have been measured, which leave bf16 to their matrix unit. */
static heed_peaks_t assumed(const char *cpu, int threads)
{
    heed_peaks_t p = {.threads = threads, .region_ns = 5000, .region_thread_ns = 100};
    p.f32_portable.one = 24e9;
    p.f32_avx2.one = 96e9;
    p.f32_avx512.one = 144e9;
    p.dot_bf16.one = strstr(cpu, "Intel") ? 72e9 : 288e9;
    p.tile_bf16.one = 2000e9;
    p.l1_read.one = 190e9;
    p.l2_read.one = 90e9;
    p.l3_read.one = 40e9;
    p.read.one = 15e9;
    p.l1_copy.one = 120e9;
    p.l2_copy.one = 60e9;
    p.l3_copy.one = 40e9;
    p.copy.one = 15e9;
    p.encode_avx2.one = 5e9;
    p.encode_avx512.one = 10e9;
    p.decode_avx2.one = 9e9;
    p.decode_avx512.one = 17e9;
#define SCALE(field, unit, about) p.field.all = p.field.one * threads;
    HEED_RATE_LIST(SCALE)
#undef SCALE
    return p;
}

/* ---- a file ---------------------------------------------------------------------------------- */

/* The next line, ended in place; NULL at the end of the text. */
static char *next_line(char **text)
{
    char *line = *text;
    if (!*line)
        return NULL;
    char *end = strchrnul(line, '\n');
    *text = *end ? end + 1 : end;
    *end = '\0';
    return line;
}

/* Splits a line at its first blank; the rest is "" where there is none. */
static char *split(char *line)
{
    char *blank = strchrnul(line, ' ');
    char *rest = *blank ? blank + 1 : blank;
    *blank = '\0';
    return rest;
}

static bool read_pair(const reader_t *reader, const char *name, char *text, int64_t low,
                      int64_t high, double *first, double *second)
{
    int64_t a, b;
    char *rest = split(text);
    if (!hd_parse_int(text, &a) || !hd_parse_int(rest, &b) || a < low || a > high || b < low ||
        b > high)
        return refuse(reader, "%s takes two whole numbers from %lld to %lld", name, (long long)low,
                      (long long)high);
    *first = (double)a;
    *second = (double)b;
    return true;
}

/* The number of a word: of its rate, or one of the two above; -1: unknown. */
static int find_word(const char *word)
{
    static const char *const words[] = {
#define NAME(field, unit, about) #field,
        HEED_RATE_LIST(NAME)
#undef NAME
            [THREADS] = "threads",
        [REGION] = "region"};
    for (int i = 0; i < HD_COUNT(words); i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

static bool read_rate(const reader_t *reader, int at, const char *word, char *rest,
                      heed_peaks_t *peaks)
{
    heed_rate_t *const rates[] = {
#define RATE(field, unit, about) &peaks->field,
        HEED_RATE_LIST(RATE)
#undef RATE
    };
    return read_pair(reader, word, rest, least_rate, most_rate, &rates[at]->one, &rates[at]->all);
}

/* One line of figures; `seen` has a bit for each word that came. */
static bool read_line(const reader_t *reader, const char *word, char *rest, heed_peaks_t *peaks,
                      uint64_t *seen)
{
    int64_t threads;
    int at = find_word(word);
    if (at < 0)
        return refuse(reader, "%.32s is unknown", word);
    if (*seen >> at & 1)
        return refuse(reader, "%s comes twice", word);
    *seen |= UINT64_C(1) << at;
    if (at == REGION)
        return read_pair(reader, word, rest, 0, most_ns, &peaks->region_ns,
                         &peaks->region_thread_ns);
    if (at != THREADS)
        return read_rate(reader, at, word, rest, peaks);
    if (!hd_parse_int(rest, &threads) || threads < 1 || threads > 4096)
        return refuse(reader, "threads takes a whole number from 1 to 4096");
    peaks->threads = (int32_t)threads;
    return true;
}

/* The lines that every file starts with. */
static bool read_head(reader_t *reader, const char *cpu, char **text)
{
    const struct {
        const char *word, *value;
    } head[] = {{"heed-tune", "1"}, {"version", heed_version()}, {"cpu", cpu}};
    for (int i = 0; i < HD_COUNT(head); i++) {
        char *line = next_line(text);
        reader->line++;
        char *rest = line ? split(line) : NULL;
        if (!rest || strcmp(line, head[i].word) != 0)
            return refuse(reader, "is not \"%s ...\", so this is no file of heed tune",
                          head[i].word);
        if (strcmp(rest, head[i].value) != 0)
            return refuse(reader, "has %s \"%.64s\", this is \"%s\"", head[i].word, rest,
                          head[i].value);
    }
    return true;
}

static bool read_text(reader_t *reader, const char *cpu, char *text, heed_peaks_t *peaks)
{
    uint64_t seen = 0;
    char *line;
    if (!read_head(reader, cpu, &text))
        return false;
    while ((line = next_line(&text))) {
        reader->line++;
        char *rest = split(line);
        if (!read_line(reader, line, rest, peaks, &seen))
            return false;
    }
    reader->line = 0;
    if (!(seen >> THREADS & 1) || !(seen >> REGION & 1))
        return refuse(reader, "has no line for %s", seen >> THREADS & 1 ? "region" : "threads");
    return true;
}

/* The whole file as text. Opened without waiting: it may be a pipe. */
static bool load(const reader_t *reader, char *text, bool *absent)
{
    struct stat about;
    size_t length = 0;
    ssize_t got = 1;
    int file = open(reader->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    *absent = file < 0 && (errno == ENOENT || errno == ENOTDIR);
    if (*absent)
        return refuse(reader, "is not there; `heed tune` writes it");
    if (file < 0)
        return refuse(reader, "cannot be opened: %s", strerror(errno));
    if (fstat(file, &about) || !S_ISREG(about.st_mode)) {
        close(file);
        return refuse(reader, "is no regular file");
    }
    while (length <= MOST_BYTES && (got = read(file, text + length, MOST_BYTES + 1 - length)) > 0)
        length += (size_t)got;
    close(file);
    if (got < 0)
        return refuse(reader, "cannot be read: %s", strerror(errno));
    if (length > MOST_BYTES)
        return refuse(reader, "has more than %d bytes", MOST_BYTES);
    if (memchr(text, 0, length))
        return refuse(reader, "is no text");
    text[length] = '\0';
    return true;
}

bool hd_tune_read(const char *file, heed_device_info_t *info, char *why, size_t size)
{
    char text[MOST_BYTES + 2];
    reader_t reader = {.file = file, .why = why, .why_size = size};
    bool absent = true;
    info->peaks = assumed(info->name, info->threads > 0 ? info->threads : 1);
    if (!file[0]) {
        snprintf(why, size, "no file of heed tune is looked for");
        return false;
    }
    heed_peaks_t peaks = info->peaks;
    if (!load(&reader, text, &absent) || !read_text(&reader, info->name, text, &peaks))
        return !absent;
    peaks.measured = 1;
    info->peaks = peaks;
    why[0] = '\0';
    return false;
}
