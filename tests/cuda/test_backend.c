/* The backend's host side without a card, function by function, on the runtime of fake_runtime.h.
 * test_device.c runs whole plans on it. */
#include "backend.h"
#include "cuda.h"
#include "expect.h"

#include "fake_runtime.h"

#include <stdio.h>

/* ---- libheed's side -------------------------------------------------------------------------- */

static char sentence[512];

static heed_status_t keep(heed_status_t status, const char *text)
{
    snprintf(sentence, sizeof(sentence), "%s", text);
    return status;
}

static const hd_host_t host = {.struct_size = sizeof(hd_host_t), .fail = keep};
hd_backend_enter_t hd_cuda_backend;

static int detect(char *why, heed_device_info_t *infos, int max)
{
    return hd_cuda_backend(&host)->detect(infos, max, why, 256);
}

static void expect_sentence(const char *text, const char *part)
{
    if (!strstr(text, part))
        print_error("'%s' is not in '%s'\n", part, text);
    assert_non_null(strstr(text, part));
}

/* ---- tests ----------------------------------------------------------------------------------- */

static int reset(void **state)
{
    (void)state;
    fake_reset();
    fake.cards = 4;
    return 0;
}

static void reasons_without_a_card(void **state)
{
    static const struct {
        cudaError_t error;
        int driver;
        const char *why;
    } cases[] = {{cudaErrorInsufficientDriver, 0, "no NVIDIA driver is installed"},
                 {cudaErrorInsufficientDriver, 11080, "too old: it is for CUDA 11.8, the backend"},
                 {cudaErrorNoDevice, 13000, "finds no card"},
                 {cudaSuccess, 13000, "finds no card"},
                 {cudaErrorUnknown, 13000, "could not be started: words of the runtime"}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char why[256];
        heed_device_info_t infos[2];
        fake.cards = 0;
        fake.count_error = cases[i].error;
        fake.driver = cases[i].driver;
        assert_int_equal(detect(why, infos, 2), 0);
        expect_sentence(why, cases[i].why);
    }
}

static void old_cards_are_left_out_with_a_reason(void **state)
{
    char why[256];
    heed_device_info_t infos[4];
    (void)state;
    fake.cards = 3;
    fake.major[0] = 7;
    fake.minor[0] = 5;
    fake.major[1] = 8;
    fake.major[2] = 12;
    assert_int_equal(detect(why, infos, 4), 2);
    assert_string_equal(why, "cuda:0, Card 0, has compute capability 7.5: Heed needs 8.0");
    assert_int_equal(infos[0].device.id, 1);
    assert_int_equal(infos[1].device.id, 2);
    assert_int_equal(infos[1].device.type, HEED_DEVICE_CUDA);
    assert_int_equal(infos[1].compute_major, 12);
    assert_int_equal(infos[1].multiprocessors, 102);
    assert_int_equal(infos[1].clock_khz, 1500000);
    assert_int_equal(infos[1].driver_version, 13000);
    assert_string_equal(infos[1].name, "Card 2");
    assert_int_equal(detect(why, infos, 1), 1);
    expect_sentence(why, "there are 3 cards: Heed uses at most 1");
}

static const char *const names[] = {"q", "k"};

static heed_status_t enter_with(int id, void *operand, hd_cuda_scope_t *scope)
{
    void *buffers[] = {operand, NULL};
    heed_launch_t launch = {.buffers = buffers};
    hd_cuda_backend(&host);
    return hd_cuda_enter(&launch, (heed_device_t){HEED_DEVICE_CUDA, id}, names, 2, scope);
}

static heed_status_t enter(int id, hd_cuda_scope_t *scope)
{
    return enter_with(id, NULL, scope);
}

static void operands_must_lie_on_the_device(void **state)
{
    hd_cuda_scope_t scope;
    int on_host = 0;
    void *memory;
    (void)state;
    assert_int_equal(enter_with(1, &on_host, &scope), HEED_ERROR_VALUE);
    expect_sentence(sentence, "q at ");
    expect_sentence(sentence, "is host memory, but cuda:1 is to use it");
    assert_int_equal(cudaMalloc(&memory, 16), cudaSuccess);
    assert_int_equal(enter_with(1, memory, &scope), HEED_ERROR_VALUE);
    expect_sentence(sentence, "lies on cuda:0, but cuda:1 is to use it");
    assert_int_equal(fake.current, 0);
    assert_int_equal(enter_with(0, memory, &scope), HEED_OK);
}

static void the_current_device_comes_back(void **state)
{
    hd_cuda_scope_t scope;
    (void)state;
    fake.current = 3;
    assert_int_equal(enter(1, &scope), HEED_OK);
    assert_int_equal(fake.current, 1);
    assert_int_equal(hd_cuda_leave(&scope, cudaSuccess, "cuda:x"), HEED_OK);
    assert_int_equal(fake.current, 3);
    assert_int_equal(enter(3, &scope), HEED_OK);
    assert_int_equal(hd_cuda_leave(&scope, cudaSuccess, "cuda:x"), HEED_OK);
    assert_int_equal(fake.switches, 2);
}

static void launch_errors_have_statuses(void **state)
{
    static const struct {
        cudaError_t error;
        heed_status_t status;
        const char *words;
    } cases[] = {
        {cudaErrorMemoryAllocation, HEED_ERROR_OUT_OF_MEMORY, "cuda:x: cuda:1 is out of memory"},
        {cudaErrorNoKernelImageForDevice, HEED_ERROR_UNSUPPORTED, "no code for cuda:1"},
        {cudaErrorInvalidConfiguration, HEED_ERROR_DEVICE,
         "cuda:x failed on cuda:1: words of the runtime (cudaErrorName)"},
        {cudaErrorLaunchFailure, HEED_ERROR_DEVICE,
         "cuda:1 has failed, and this process can use it no more: words of the runtime"}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        hd_cuda_scope_t scope;
        assert_int_equal(enter(1, &scope), HEED_OK);
        assert_int_equal(hd_cuda_leave(&scope, cases[i].error, "cuda:x"), cases[i].status);
        expect_sentence(sentence, cases[i].words);
        assert_int_equal(fake.current, 0);
    }
}

/* A kernel whose body the card would not load is refused with a reason, not run empty. */
static void a_kernel_without_a_body_is_refused(void **state)
{
    static const heed_device_t second = {HEED_DEVICE_CUDA, 1};
    static const int kernel = 0;
    heed_why_t why = {0};
    (void)state;
    fake.block_threads = HD_CUDA_MARK_THREADS;
    assert_int_equal(hd_cuda_has_mark(second, &kernel, "sm_90a", &why), 1);
    assert_int_equal(fake.switches, 2);
    fake.block_threads = HD_CUDA_MARK_THREADS / 2;
    assert_int_equal(hd_cuda_has_mark(second, &kernel, "sm_90a", &why), 0);
    assert_int_equal(why.status, HEED_ERROR_UNSUPPORTED);
    expect_sentence(why.text, "needs machine code for sm_90a, which cuda:1 would not load");
    assert_int_equal(hd_cuda_has_mark(second, &kernel, "sm_90a", NULL), 0);
    fake.failing = "cudaFuncGetAttributes";
    fake.failure = cudaErrorNoKernelImageForDevice;
    assert_int_equal(hd_cuda_has_mark(second, &kernel, "sm_90a", &why), 0);
    expect_sentence(why.text, "needs machine code for sm_90a");
    fake.failure = cudaErrorUnknown;
    assert_int_equal(hd_cuda_has_mark(second, &kernel, "sm_90a", &why), 0);
    assert_int_equal(why.status, HEED_ERROR_DEVICE);
    expect_sentence(why.text, "asking cuda:1 for a kernel: words of the runtime");
    assert_int_equal(fake.current, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reasons_without_a_card, reset),
        cmocka_unit_test_setup(old_cards_are_left_out_with_a_reason, reset),
        cmocka_unit_test_setup(operands_must_lie_on_the_device, reset),
        cmocka_unit_test_setup(the_current_device_comes_back, reset),
        cmocka_unit_test_setup(launch_errors_have_statuses, reset),
        cmocka_unit_test_setup(a_kernel_without_a_body_is_refused, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
