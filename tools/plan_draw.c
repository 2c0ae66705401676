/* Pictures of schedules: a line for each stage, time to the right. */
#define _GNU_SOURCE
#include "plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool is_work(const heed_action_t *action)
{
    return action->kind < HEED_ACTION_SEND;
}

/* ---- text ------------------------------------------------------------------------------------ */

enum { MOST_COLUMNS = 400, CUT_COLUMNS = 120 };

static int64_t common(int64_t a, int64_t b)
{
    return b ? common(b, a % b) : a;
}

/* The longest time that all starts and ends are multiples of. */
static int64_t unit_of(const plan_picture_t *picture)
{
    int64_t unit = 0;
    for (int32_t i = 0; i < picture->first[picture->desc->stages]; i++)
        if (is_work(&picture->actions[i]))
            unit = common(common(unit, picture->actions[i].start), picture->actions[i].end);
    return unit ? unit : 1;
}

int plan_name(const heed_pipeline_desc_t *desc, const heed_action_t *action, char *text)
{
    char chunk[2] = "";
    if (desc->chunks > 1)
        chunk[0] = action->chunk < 26 ? (char)('a' + action->chunk) : '+';
    char kind = is_work(action) ? "FBW"[action->kind]
                                : "SRsr"[action->kind - HEED_ACTION_SEND + 2 * action->gradient];
    return snprintf(text, PLAN_NAME_SIZE, "%c%d%s", kind, action->microbatch, chunk);
}

/* Cells of one unit each, with names; blanks at the end of a line are not drawn. */
static void draw_cells(const plan_picture_t *picture, int32_t stage, int64_t unit, int width,
                       int64_t until)
{
    int64_t at = 0;
    int blanks = 0;
    for (int32_t i = picture->first[stage]; i < picture->first[stage + 1]; i++) {
        const heed_action_t *action = &picture->actions[i];
        char name[PLAN_NAME_SIZE];
        if (!is_work(action) || action->start == action->end || action->end > until)
            continue;
        blanks += (int)((action->start - at) / unit) * width;
        int columns = (int)((action->end - action->start) / unit) * width;
        printf("%*s", blanks, "");
        int length = plan_name(picture->desc, action, name);
        printf("%s", name);
        for (; length < columns - 1 && columns > width; length++)
            putchar('-');
        blanks = columns - length;
        at = action->end;
    }
}

void plan_draw_text(const plan_picture_t *picture)
{
    int64_t unit = unit_of(picture), units = picture->makespan / unit;
    char widest[24];
    int width = 2 + (picture->desc->chunks > 1) +
                snprintf(widest, sizeof widest, "%d", picture->desc->microbatches - 1);
    int64_t shown = units <= MOST_COLUMNS / width ? units : CUT_COLUMNS / width;
    for (int32_t stage = 0; stage < picture->desc->stages; stage++) {
        printf("  %3d ", stage);
        draw_cells(picture, stage, unit, width, shown * unit);
        putchar('\n');
    }
    if (shown < units)
        printf("  (up to %lld of %lld; --svg FILE draws all)\n", (long long)(shown * unit),
               (long long)picture->makespan);
}

/* ---- SVG ------------------------------------------------------------------------------------- */

enum { LEFT = 64, TOP = 28, ROW = 26, BOX = 22, WIDTH = 1200 };

/* Forward, backward by inputs, backward by weights; the second of each for odd chunks. */
static const char *const colours[3][2] = {
    {"#3b76b5", "#7fb0e0"}, {"#c96a2b", "#eca97a"}, {"#4d8f57", "#96c99d"}};
static const char *const meanings[3] = {"forward", "backward (inputs)", "backward (weights)"};

static void write_box(FILE *file, const heed_action_t *action, int32_t stage, double scale)
{
    double x = LEFT + (double)action->start * scale;
    double width = (double)(action->end - action->start) * scale;
    int y = TOP + stage * ROW;
    fprintf(file,
            "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" fill=\"%s\" stroke=\"#fff\" "
            "stroke-width=\"0.5\"/>\n",
            x, y, width, BOX, colours[action->kind][action->chunk % 2]);
    if (width >= 7)
        fprintf(file, "<text x=\"%.2f\" y=\"%d\" text-anchor=\"middle\" fill=\"#fff\">%d</text>\n",
                x + width / 2, y + 15, action->microbatch);
}

static void write_picture(FILE *file, const plan_picture_t *picture)
{
    int32_t stages = picture->desc->stages;
    double scale = picture->makespan ? (double)WIDTH / (double)picture->makespan : 1;
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"10\">\n<title>%s, %d stages, %d "
            "microbatches</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            LEFT + WIDTH + 12, TOP + stages * ROW + 12, heed_schedule_name(picture->desc->schedule),
            stages, picture->desc->microbatches);
    for (int kind = 0; kind < 3; kind++)
        fprintf(file,
                "<rect x=\"%d\" y=\"8\" width=\"12\" height=\"12\" fill=\"%s\"/>\n<text x=\"%d\" "
                "y=\"18\">%s</text>\n",
                LEFT + 130 * kind, colours[kind][0], LEFT + 130 * kind + 16, meanings[kind]);
    for (int32_t stage = 0; stage < stages; stage++) {
        fprintf(file,
                "<text x=\"8\" y=\"%d\">stage %d</text>\n<rect x=\"%d\" y=\"%d\" width=\"%d\" "
                "height=\"%d\" fill=\"#eee\"/>\n",
                TOP + stage * ROW + 15, stage, LEFT, TOP + stage * ROW, WIDTH, BOX);
        for (int32_t i = picture->first[stage]; i < picture->first[stage + 1]; i++)
            if (is_work(&picture->actions[i]) &&
                picture->actions[i].end > picture->actions[i].start)
                write_box(file, &picture->actions[i], stage, scale);
    }
    fprintf(file, "</svg>\n");
}

int plan_draw_svg(const plan_picture_t *picture, const char *path)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return tool_fail("%s: %s", path, strerror(errno));
    write_picture(file, picture);
    bool bad = ferror(file);
    if (fclose(file) || bad)
        return tool_fail("%s: cannot be written", path);
    return TOOL_OK;
}
