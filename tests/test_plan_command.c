/* heed plan from outside. */
#define _GNU_SOURCE
#include "cli.h"

#include <jansson.h>

static void expect_line(const char *line)
{
    if (!strstr(out, line))
        fail_msg("no \"%s\" in:\n%s", line, out);
}

static void pipelines_as_text(void **state)
{
    (void)state;
    EXPECT_OUT("1f1b, 2 stages, 3 microbatches\n"
               "    0 F0 F1       B0 W0 F2 B1 W1    B2 W2\n"
               "    1    F0 B0 W0 F1 B1 W1 F2 B2 W2\n"
               "stage 0: from 0 to 12, busy 9, keeps 2 activations\n"
               "stage 1: from 1 to 10, busy 9, keeps 1 activation\n"
               "makespan 12, bubble 3 (25.0 %), idle 3, peak 2 activations\n",
               "plan pipeline --stages 2 --microbatches 3");
    EXPECT_OUT("makespan 33, bubble 9 (27.3 %), idle 9, peak 4 activations\n",
               "plan pipeline --stages 4 --microbatches 8 --schedule 1f1b");
    EXPECT_OUT("    0 F0--- F1---             B0 W0 B1 W1\n    1       F0--- F1--- B0 W0 B1 W1\n",
               "plan pipeline --stages 2 --microbatches 2 --forward 2 --schedule gpipe");
    EXPECT_OUT("dualpipe, 2 stages, 4 microbatches, 2 chunks on each stage\n"
               "    0 F0a F2b F1a B2b W2b F3b B0a W0a B3b W3b B1a W1a\n"
               "    1 F2b F0a F3b B0a W0a F1a B2b W2b B1a W1a B3b W3b\n",
               "plan pipeline --stages 2 --microbatches 4 --schedule dualpipe");
    /* Too wide: the beginning. */
    EXPECT_OUT("    0 F0  F1                  B0  W0--------- F2  B1  W1--------- F3",
               "plan pipeline --stages 2 --microbatches 100 --backward-weight 3");
    expect_line("(up to 30 of 505; --svg FILE draws all)");
    EXPECT_OUT("  0 F0 S0>1 r0<1 B0 W0\n    1 R0<0 F0 B0 W0 s0>0\n",
               "plan pipeline --stages 2 --microbatches 1 --actions");
    EXPECT_OUT("layers 0-3 of cost 6", "plan pipeline --stages 3 --microbatches 4 --layers 13 "
                                       "--embedding 2 --head 3");
    expect_line("keeps 3 activations, layers 0-3 of cost 6\n");
    expect_line("keeps 1 activation, layers 10-12 of cost 6\n");
    expect_line("makespan 108,"); /* (4 + 2) turns of 6 times 3 */
}

static void pipelines_as_json(void **state)
{
    (void)state;
    json_error_t error;
    assert_int_equal(heed("plan pipeline --stages 4 --microbatches 12 --schedule zb-h2 --json"), 0);
    json_t *plan = json_loads(out, JSON_REJECT_DUPLICATES, &error);
    if (!plan)
        fail_msg("%s", error.text);
    assert_int_equal(json_integer_value(json_object_get(plan, "makespan")), 39);
    assert_int_equal(json_integer_value(json_object_get(plan, "bubble")), 0);
    assert_int_equal(json_integer_value(json_object_get(plan, "peak_activations")), 7);
    json_t *stages = json_object_get(plan, "stages");
    assert_int_equal(json_array_size(stages), 4);
    json_t *actions = json_object_get(json_array_get(stages, 1), "actions");
    assert_int_equal(json_array_size(actions), 12 * 7);
    const char *kind = json_string_value(json_object_get(json_array_get(actions, 0), "kind"));
    assert_string_equal(kind, "recv");
    json_decref(plan);
}

static void pipelines_as_svg(void **state)
{
    (void)state;
    static char svg[1 << 16];
    char path[128];
    EXPECT_OUT("makespan", "plan pipeline --stages 3 --microbatches 5 --svg p.svg");
    snprintf(path, sizeof path, "%s/p.svg", folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    svg[fread(svg, 1, sizeof svg - 1, file)] = '\0';
    fclose(file);
    assert_non_null(strstr(svg, "<title>1f1b, 3 stages, 5 microbatches</title>"));
    int boxes = 0;
    for (const char *at = svg; (at = strstr(at, "stroke=\"#fff\"")); at++)
        boxes++;
    assert_int_equal(boxes, 3 * 3 * 5);
    /* The last work of stage 0 ends where the picture does: 57.14 wide, of 21 units on 1200. */
    assert_non_null(strstr(svg, "x=\"1206.86\" y=\"28\" width=\"57.14\""));
    EXPECT_FAILED("/nowhere/p.svg: No such file",
                  "plan pipeline --stages 3 --microbatches 5 --svg /nowhere/p.svg");
}

static void stages(void **state)
{
    (void)state;
    EXPECT_OUT("stage 0: 4 layers from 0, cost 4\nstage 1: 4 layers from 4, cost 4\n"
               "stage 2: 2 layers from 8, cost 2\nslowest 4; 83.3 % of the stages' time is work\n",
               "plan stages --stages 3 --layers 10");
    EXPECT_OUT("stage 1: 1 layer from 2, cost 9\n",
               "plan stages --stages 3 --costs 3,3,9,1 --head 5 --embedding 1");
    EXPECT_OUT("\"slowest\": 9", "plan stages --stages 3 --costs 3,3,9,1 --head 5 --json");
    EXPECT_FAILED("stages=3 is not 1 to 2", "plan stages --stages 3 --layers 2");
    EXPECT_USAGE("--costs 'x' is not 0 to", "plan stages --stages 3 --costs 1,x");
    EXPECT_USAGE("--stages, and --layers or --costs are needed", "plan stages --stages 3");
}

static void layers(void **state)
{
    (void)state;
    EXPECT_OUT("rank 0 of 8: query heads 0-3, key heads 0-0\n",
               "plan layer --ranks 8 --kv-heads 8 --ffn 14336 --gated");
    expect_line(
        "  qkv        0-511,4096-4223,5120-5247     0-4095         3.15 M  dx all-reduce\n");
    expect_line("  gate_up    0-1791,14336-16127 ");
    expect_line("27.3 M, work 584 GFLOP forward\nsends 224 MiB forward, 224 MiB backward\n");
    EXPECT_OUT("query heads 6-7, key heads 1-1 (copy 1 of 2)",
               "plan layer --ranks 16 --kv-heads 8 --rank 3 --sequence-parallel --interleaved");
    expect_line("x all-gather, dx reduce-scatter");
    expect_line("y reduce-scatter, dy all-gather");
    expect_line("to sum gradients");
    EXPECT_OUT("\"forward_bytes\": 251658240.0", "plan layer --ranks 4 --sequence 10240 --json");
    EXPECT_OUT("query heads 22-31", "plan layer --ranks 3 --rank 2 --uneven");
    EXPECT_FAILED("heads=32, kv_heads=32 do not divide into ranks=3", "plan layer --ranks 3");
    EXPECT_USAGE("hidden '0' is not 1 to", "plan layer --hidden 0");
    EXPECT_USAGE("dtype 'f9' is unknown", "plan layer --dtype f9");
}

static void splits_and_meshes(void **state)
{
    (void)state;
    EXPECT_OUT("part 0: 4, 0 to 3\npart 1: 4, 4 to 7\npart 2: 2, 8 to 9\n",
               "plan split 10 --parts 3 --policy ceil");
    EXPECT_OUT("part 5: 0\n", "plan split 10 --parts 6 --policy ceil");
    EXPECT_OUT("\"count\": 2432", "plan split 14336 --parts 6 --policy aligned --align 128 --json");
    EXPECT_FAILED("n=10 does not divide into parts=3 equal ones",
                  "plan split 10 --parts 3 --policy equal");
    EXPECT_FAILED("parts=11 is not 1 to 10", "plan split 10 --parts 11");
    EXPECT_FAILED("n=10 is no multiple of align=4",
                  "plan split 10 --parts 2 --policy aligned --align 4");
    EXPECT_USAGE("--policy 'fair' is not equal, ceil", "plan split 10 --parts 2 --policy fair");
    EXPECT_USAGE("N and --parts are needed", "plan split 10");
    EXPECT_OUT("rank 5 at 1,0,1; along each axis  1,5  5,7  4,5\n", "plan mesh 2x2x2 --ranks 8");
    EXPECT_OUT("\"groups\"", "plan mesh 2x3 --json");
    EXPECT_FAILED("mesh '2x2x2' has 8 ranks, but ranks=6", "plan mesh 2x2x2 --ranks 6");
    EXPECT_USAGE("mesh '2y2' is no sizes", "plan mesh 2y2");
    EXPECT_FAILED("mesh '131072' has 131072 ranks: 65536 are shown", "plan mesh 131072");
}

static void complains(void **state)
{
    (void)state;
    EXPECT_USAGE("a part is missing", "plan");
    EXPECT_USAGE("there is no plan of 'world'; there are pipeline, stages, layer, split, mesh",
                 "plan world");
    EXPECT_OUT("Examples:", "plan --help");
    EXPECT_OUT("Examples:", "help plan");
    static const char *const parts[] = {"pipeline", "stages", "layer", "split", "mesh"};
    for (int i = 0; i < 5; i++) {
        EXPECT_OUT("Examples:", "plan %s --help", parts[i]);
        EXPECT_USAGE("unrecognized option '--nonsense'", "plan %s --nonsense", parts[i]);
    }
    EXPECT_USAGE("--stages and --microbatches are needed", "plan pipeline --stages 3");
    EXPECT_USAGE("--microbatches '0' is not 1 to", "plan pipeline --stages 3 --microbatches 0");
    EXPECT_USAGE("schedule '2f2b' is unknown: there are gpipe",
                 "plan pipeline --stages 3 --microbatches 4 --schedule 2f2b");
    EXPECT_FAILED("desc.stages=3, microbatches=4: interleaved takes 2 stages or more",
                  "plan pipeline --stages 3 --microbatches 4 --schedule interleaved");
    EXPECT_USAGE("unexpected argument 'now'", "plan pipeline now");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipelines_as_text),
        cmocka_unit_test(pipelines_as_json),
        cmocka_unit_test(pipelines_as_svg),
        cmocka_unit_test(stages),
        cmocka_unit_test(layers),
        cmocka_unit_test(splits_and_meshes),
        cmocka_unit_test(complains),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
