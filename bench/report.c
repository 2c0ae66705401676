/* What binds each result, and the results as a table for people (Markdown) and for programs (CSV).
 */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- judging --------------------------------------------------------------------------------- */

double bench_gflops(const bench_result_t *result)
{
    return result->flops / result->stats.median;
}

double bench_gbps(const bench_result_t *result)
{
    return result->bytes / result->stats.median;
}

double bench_predicted(const bench_result_t *result)
{
    return result->estimate_ns / result->stats.median;
}

/* Where the operands lie after the warm-up: in a cache if they fit with room to spare. */
static double read_limit(const bench_run_t *run, const bench_result_t *result, const char **name)
{
    const double spare = 0.75;
    double l2 = heed_cache_bytes(&run->cpu, 2, result->threads);
    double l3 = heed_cache_bytes(&run->cpu, 3, result->threads);

    if (result->bytes <= spare * l2 && run->limits.l2_read > 0) {
        *name = "l2_read";
        return run->limits.l2_read;
    }
    if (result->bytes <= spare * l3 && run->limits.l3_read > 0) {
        *name = "l3_read";
        return run->limits.l3_read;
    }
    *name = "read";
    return run->limits.read;
}

static void judge(bench_result_t *result, const char *compute, double peak, const char *memory,
                  double read)
{
    double compute_ns = 1e9 * result->flops / peak;
    double read_ns = 1e9 * result->bytes / read;

    result->limit = compute_ns >= read_ns ? compute : memory;
    result->fraction_of_limit = fmax(compute_ns, read_ns) / result->stats.median;
}

static void judge_card(const bench_run_t *run, bench_result_t *result)
{
    const bench_limits_t *limits = &run->limits;
    const struct {
        const char *dtype, *limit;
        double peak;
    } products[] = {{"f32", "matmul_f32", limits->matmul_f32},
                    {"bf16", "matmul_bf16", limits->matmul_bf16},
                    {"f16", "matmul_f16", limits->matmul_f16}};

    for (int i = 0; i < 3; i++)
        if (!strcmp(products[i].dtype, result->dtype) && products[i].peak > 0 && limits->copy > 0)
            judge(result, products[i].limit, products[i].peak, "copy", limits->copy);
}

void bench_judge(const bench_run_t *run, bench_result_t *result)
{
    bool bf16 = !strcmp(result->dtype, "bf16");
    bool tile = bf16 && run->limits.tile_bf16 > 0, dot = bf16 && run->limits.dot_bf16 > 0;
    double peak = tile ? run->limits.tile_bf16 : dot ? run->limits.dot_bf16 : run->limits.fma_f32;
    const char *memory = NULL;

    /* Where nothing was measured that a result could be held against, there is no limit. */
    result->fraction_of_limit = NAN;
    result->limit = NULL;
    if (strcmp(result->device, "cpu") != 0) {
        judge_card(run, result);
        return;
    }
    if (result->copy_ns > 0) {
        result->limit = "memcpy";
        result->fraction_of_limit = result->copy_ns / result->stats.median;
        return;
    }
    double read = read_limit(run, result, &memory);
    if (peak > 0 && read > 0)
        judge(result, tile ? "tile_bf16" : dot ? "dot_bf16" : "fma_f32", peak, memory, read);
}

/* ---- Markdown -------------------------------------------------------------------------------- */

enum { COLUMNS = 12, CELL = BENCH_TEXT };

typedef char row_t[COLUMNS][CELL];

static const row_t header = {"model", "problem",  "implementation", "threads",
                             "ms",    "+- MAD",   "GFLOP/s",        "GB/s",
                             "limit", "of limit", "predicted ms",   "/ measured"};

/* The first three columns and the limit's name are text, the others numbers. */
static bool is_text(int column)
{
    return column < 3 || column == 8;
}

/* Milliseconds with four significant digits, however short. */
static void put_ms(char *cell, double ns)
{
    double ms = ns / 1e6;

    if (isnan(ns))
        snprintf(cell, CELL, "-");
    else
        snprintf(cell, CELL, "%.*f", ms >= 100 ? 1 : ms >= 10 ? 2 : ms >= 1 ? 3 : 4, ms);
}

static bool is_dtype(const char *op, const char *word)
{
    heed_op_operand_t operand;

    for (int i = 0; heed_op_operand(op, i, &operand); i++)
        if (!strcmp(operand.dtype, word))
            return true;
    return false;
}

/* Whether a word only says what is so anyway. Axes and types are always worth saying. */
static bool is_default(const char *op, const char *word, size_t length)
{
    heed_op_word_t known;

    for (int i = 0; heed_op_word(op, i, &known); i++) {
        char text[BENCH_NAME];
        snprintf(text, sizeof(text), "%s=%s", known.name, known.fallback);
        if (strlen(text) == length && !strncmp(text, word, length))
            return !known.is_shape && !is_dtype(op, known.name);
    }
    return false;
}

/* Problems of one operation share it, so it is left out. */
void bench_short_problem(const char *prob, char *cell, size_t size)
{
    char op[BENCH_NAME];
    size_t used = (size_t)snprintf(cell, size, "`");

    snprintf(op, sizeof(op), "%.*s", (int)strcspn(prob, " "), prob);
    prob += strcspn(prob, " ");
    for (prob += strspn(prob, " "); *prob; prob += strspn(prob, " ")) {
        size_t length = strcspn(prob, " ");
        if (!is_default(op, prob, length) && used + length + 3 < size)
            used += (size_t)snprintf(cell + used, size - used, "%s%.*s", used > 1 ? " " : "",
                                     (int)length, prob);
        prob += length;
    }
    snprintf(cell + used, size - used, "`");
}

static void put_row(const bench_result_t *result, row_t row)
{
    snprintf(row[0], CELL, "%s", result->label);
    bench_short_problem(result->prob, row[1], CELL);
    snprintf(row[2], CELL, "%s%s", result->impl, result->is_auto ? " (auto)" : "");
    snprintf(row[3], CELL, "%d", result->threads);
    put_ms(row[4], result->stats.median);
    put_ms(row[5], result->stats.mad);
    snprintf(row[6], CELL, "%.1f", bench_gflops(result));
    snprintf(row[7], CELL, "%.1f", bench_gbps(result));
    snprintf(row[8], CELL, "%s", result->limit ? result->limit : "-");
    if (isnan(result->fraction_of_limit))
        snprintf(row[9], CELL, "-");
    else
        snprintf(row[9], CELL, "%.1f %%", 100 * result->fraction_of_limit);
    put_ms(row[10], result->estimate_ns);
    if (isnan(bench_predicted(result)))
        snprintf(row[11], CELL, "-");
    else
        snprintf(row[11], CELL, "%.2f", bench_predicted(result));
}

static void print_row(const row_t row, const int *width, bool labels, FILE *to)
{
    for (int c = labels ? 0 : 1; c < COLUMNS; c++)
        fprintf(to, is_text(c) ? "| %-*s " : "| %*s ", width[c], row[c]);
    fputs("|\n", to);
}

static void print_rule(const int *width, bool labels, FILE *to)
{
    for (int c = labels ? 0 : 1; c < COLUMNS; c++) {
        fputs("|", to);
        for (int i = 0; i < width[c] + 1; i++)
            fputc('-', to);
        fputc(is_text(c) ? '-' : ':', to);
    }
    fputs("|\n", to);
}

static void print_table(const bench_run_t *run, FILE *to)
{
    row_t *rows = bench_realloc(NULL, (size_t)run->result_count * sizeof(*rows));
    int width[COLUMNS];
    bool labels = false;

    for (int c = 0; c < COLUMNS; c++)
        width[c] = (int)strlen(header[c]);
    for (int r = 0; r < run->result_count; r++) {
        put_row(&run->results[r], rows[r]);
        labels = labels || rows[r][0][0];
        for (int c = 0; c < COLUMNS; c++) {
            int length = (int)strlen(rows[r][c]);
            width[c] = length > width[c] ? length : width[c];
        }
    }
    print_row(header, width, labels, to);
    print_rule(width, labels, to);
    for (int r = 0; r < run->result_count; r++)
        print_row(rows[r], width, labels, to);
    free(rows);
}

static void print_machine(const bench_run_t *run, FILE *to)
{
    char isa[128];
    const char *comma = "";

    if (!bench_on_host(run))
        fprintf(to,
                "%s, cuda:%d, driver for CUDA %d.%d, times by events around single calls, last "
                "cache overwritten before each. Limits: ",
                run->card.name, (int)run->device.id, run->card.driver_version / 1000,
                run->card.driver_version % 1000 / 10);
    else
        fprintf(to, "%s, %s, %d thread%s. Limits: ", run->cpu.name[0] ? run->cpu.name : "CPU",
                heed_isa_names(run->cpu.isa, isa, sizeof(isa)), (int)run->cpu.threads,
                run->cpu.threads == 1 ? "" : "s");
#define PRINT_gflops "GFLOP/s"
#define PRINT_gbps   "GB/s"
#define PRINT(field, unit)                                                                 \
    if (run->limits.field > 0) {                                                           \
        fprintf(to, "%s%s %.1f %s", comma, #field, run->limits.field / 1e9, PRINT_##unit); \
        comma = ", ";                                                                      \
    }
    BENCH_LIMIT_LIST(PRINT)
#undef PRINT
    fprintf(to, "%s.\n", comma[0] ? "" : "none measured");
    if (run->limits_drift > BENCH_DRIFT)
        fprintf(to,
                "The limits before and after the run differ by up to %.0f %%: the machine was "
                "not alone, or its clock changed.\n",
                100 * run->limits_drift);
    fputc('\n', to);
}

static bool same_miss(const bench_miss_t *a, const bench_miss_t *b)
{
    return !strcmp(a->impl, b->impl) && !strcmp(a->why, b->why) && a->wrong == b->wrong;
}

/* Misses of one implementation for one reason share a line. */
static void print_misses(const bench_run_t *run, FILE *to)
{
    for (int m = 0; m < run->miss_count; m++) {
        const bench_miss_t *miss = &run->misses[m];
        int before = 0;
        int same = 0;
        for (int n = 0; n < run->miss_count; n++) {
            before += n < m && same_miss(&run->misses[n], miss);
            same += same_miss(&run->misses[n], miss);
        }
        if (before)
            continue;
        fprintf(to, "- %s %s `%s`", miss->impl, miss->wrong ? "FAILED" : "refuses", miss->prob);
        if (same > 1)
            fprintf(to, " and %d more", same - 1);
        fprintf(to, ": %s\n", miss->why);
    }
}

/* How far predictions are off, over all results that have one. */
static void print_predictions(const bench_run_t *run, FILE *to)
{
    int known = 0, near = 0;
    double worst = 1;
    const char *prob = "";

    for (int r = 0; r < run->result_count; r++) {
        double ratio = bench_predicted(&run->results[r]);
        double off = ratio > 1 ? ratio : 1 / ratio;
        if (isnan(ratio))
            continue;
        known++;
        near += off <= BENCH_NEAR;
        if (off > worst) {
            worst = off;
            prob = run->results[r].prob;
        }
    }
    if (known)
        fprintf(
            to,
            "\nPredictions (peaks %s): %d of %d within a factor of %.1f, the worst %.2f%s%s%s\n",
            run->cpu.peaks.measured ? "measured by heed tune" : "assumed", near, known, BENCH_NEAR,
            worst, prob[0] ? ": `" : "", prob, prob[0] ? "`" : "");
}

void bench_report_markdown(const bench_run_t *run, FILE *to)
{
    print_machine(run, to);
    if (run->result_count)
        print_table(run, to);
    print_predictions(run, to);
    if (run->result_count && run->miss_count)
        fputc('\n', to);
    print_misses(run, to);
}

/* ---- CSV ------------------------------------------------------------------------------------- */

/* A text field: quoted, quotes doubled. */
static void put_text(const char *text, FILE *to)
{
    fputc('"', to);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', to);
        fputc(*text, to);
    }
    fputc('"', to);
}

/* A number after a comma, empty where it is not known. */
static void put_number(double value, const char *format, FILE *to)
{
    fputc(',', to);
    if (isfinite(value))
        fprintf(to, format, value);
}

static void put_line(const bench_result_t *result, FILE *to)
{
    put_text(result->prob, to);
    fputc(',', to);
    put_text(result->label, to);
    fprintf(to, ",%s,%s,%s,%d", result->impl, result->device, result->dtype, result->threads);
    put_number(result->stats.median, "%.0f", to);
    put_number(result->stats.mad, "%.0f", to);
    put_number(result->stats.min, "%.0f", to);
    fprintf(to, ",%d", result->sample_count);
    put_number(result->flops, "%.0f", to);
    put_number(result->bytes, "%.0f", to);
    put_number(bench_gflops(result), "%.3f", to);
    put_number(bench_gbps(result), "%.3f", to);
    fprintf(to, ",%s", result->limit ? result->limit : "");
    put_number(result->fraction_of_limit, "%.4f", to);
    put_number(result->estimate_ns, "%.0f", to);
    put_number(bench_predicted(result), "%.4f", to);
    put_number(result->max_err, "%.3e", to);
    fputc(',', to);
    put_text(result->checked ? result->checked : "", to);
    fputc('\n', to);
}

void bench_report_csv(const bench_run_t *run, FILE *to)
{
    fputs("prob,label,impl,device,dtype,threads,median_ns,mad_ns,min_ns,samples,flops,bytes,gflops,"
          "gbps,limit,fraction_of_limit,estimate_ns,predicted,max_err,checked\n",
          to);
    for (int r = 0; r < run->result_count; r++)
        put_line(&run->results[r], to);
}
