/* heed tune: measuring (tune_measure.c) and the file (tune.c). */
#ifndef TOOLS_TUNE_H
#define TOOLS_TUNE_H

#include <heed/heed.h>

#include <stdbool.h>

/* Says what is being measured, "" at the end. */
typedef void (*tune_progress_t)(const char *what);

/* Measures what `cpu` reaches with one thread and with cpu->threads, `seconds` for each kernel, of
 * which there are about 40. Rates that the machine lacks are 0. False after a complaint. */
bool tune_measure(const heed_device_info_t *cpu, double seconds, tune_progress_t progress,
                  heed_peaks_t *peaks);

/* Writes the file that contexts read, by way of a temporary beside it, with the folders above it
 * that are missing. False after a complaint. */
bool tune_write(const char *path, const heed_device_info_t *cpu, const heed_peaks_t *peaks);

#endif
