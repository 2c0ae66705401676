/* The backend's host side without a card: the CUDA runtime is the few functions below, which answer
 * what the test puts into `machine`. Nothing here says what a GPU does. */
#include "backend.h"
#include "cuda.h"
#include "expect.h"

#include <cuda_runtime_api.h>

#include <stdio.h>

/* ---- the runtime ----------------------------------------------------------------------------- */

static struct {
    cudaError_t count_error;
    int cards, driver;
    int major[4], minor[4];
    enum cudaMemoryType memory; /* of every pointer */
    int memory_device, current, switches;
} machine;

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = machine.cards;
    return machine.count_error;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = machine.driver;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int id)
{
    memset(properties, 0, sizeof(*properties));
    snprintf(properties->name, sizeof(properties->name), "Card %d", id);
    properties->major = machine.major[id];
    properties->minor = machine.minor[id];
    properties->multiProcessorCount = 100 + id;
    properties->totalGlobalMem = (size_t)1 << 34;
    properties->sharedMemPerBlockOptin = 99 * 1024;
    properties->l2CacheSize = 6 << 20;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int id)
{
    (void)id;
    *value = 1500000;
    return which == cudaDevAttrClockRate ? cudaSuccess : cudaErrorInvalidValue;
}

/* A driver without the encoder of tensor maps. */
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result)
{
    (void)symbol, (void)version, (void)flags;
    *function = NULL;
    *result = cudaDriverEntryPointSymbolNotFound;
    return cudaErrorNotSupported;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *at)
{
    (void)at;
    memset(attributes, 0, sizeof(*attributes));
    attributes->type = machine.memory;
    attributes->device = machine.memory_device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *id)
{
    *id = machine.current;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int id)
{
    machine.current = id;
    machine.switches++;
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
    (void)error;
    return "words of the runtime";
}

const char *cudaGetErrorName(cudaError_t error)
{
    (void)error;
    return "cudaErrorName";
}

/* ---- libheed's side -------------------------------------------------------------------------- */

static char sentence[512];

static heed_status_t keep(heed_status_t status, const char *text)
{
    snprintf(sentence, sizeof(sentence), "%s", text);
    return status;
}

static const hd_host_t host = {.struct_size = sizeof(hd_host_t), .fail = keep};
hd_backend_enter_t hd_cuda_backend;
/* In place of the kernel's file. */
const heed_impl_t hd_impl_flash_simt;

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
    memset(&machine, 0, sizeof(machine));
    machine.driver = 13000;
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
        machine.count_error = cases[i].error;
        machine.driver = cases[i].driver;
        assert_int_equal(detect(why, infos, 2), 0);
        expect_sentence(why, cases[i].why);
    }
}

static void old_cards_are_left_out_with_a_reason(void **state)
{
    char why[256];
    heed_device_info_t infos[4];
    (void)state;
    machine.cards = 3;
    machine.major[0] = 7;
    machine.minor[0] = 5;
    machine.major[1] = 8;
    machine.major[2] = 12;
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

static heed_status_t enter(int id, hd_cuda_scope_t *scope)
{
    int memory = 0;
    void *buffers[] = {&memory, NULL};
    heed_launch_t launch = {.buffers = buffers};
    hd_cuda_backend(&host);
    return hd_cuda_enter(&launch, (heed_device_t){HEED_DEVICE_CUDA, id}, names, 2, scope);
}

static void operands_must_lie_on_the_device(void **state)
{
    hd_cuda_scope_t scope;
    (void)state;
    machine.memory = cudaMemoryTypeUnregistered;
    assert_int_equal(enter(1, &scope), HEED_ERROR_VALUE);
    expect_sentence(sentence, "q at ");
    expect_sentence(sentence, "is host memory, but the plan runs on cuda:1");
    machine.memory = cudaMemoryTypeDevice;
    assert_int_equal(enter(1, &scope), HEED_ERROR_VALUE);
    expect_sentence(sentence, "lies on cuda:0, but the plan runs on cuda:1");
    assert_int_equal(machine.switches, 0);
    machine.memory_device = 1;
    assert_int_equal(enter(1, &scope), HEED_OK);
    machine.memory = cudaMemoryTypeManaged;
    machine.memory_device = 0;
    assert_int_equal(enter(1, &scope), HEED_OK);
    machine.memory = cudaMemoryTypeHost;
    assert_int_equal(enter(1, &scope), HEED_OK);
}

static void the_current_device_comes_back(void **state)
{
    hd_cuda_scope_t scope;
    (void)state;
    machine.memory = cudaMemoryTypeManaged;
    machine.current = 3;
    assert_int_equal(enter(1, &scope), HEED_OK);
    assert_int_equal(machine.current, 1);
    assert_int_equal(hd_cuda_leave(&scope, cudaSuccess, "cuda:x"), HEED_OK);
    assert_int_equal(machine.current, 3);
    assert_int_equal(enter(3, &scope), HEED_OK);
    assert_int_equal(hd_cuda_leave(&scope, cudaSuccess, "cuda:x"), HEED_OK);
    assert_int_equal(machine.switches, 2);
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
        {cudaErrorLaunchFailure, HEED_ERROR_DEVICE, "words of the runtime (cudaErrorName)"}};
    (void)state;
    machine.memory = cudaMemoryTypeManaged;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        hd_cuda_scope_t scope;
        assert_int_equal(enter(1, &scope), HEED_OK);
        assert_int_equal(hd_cuda_leave(&scope, cases[i].error, "cuda:x"), cases[i].status);
        expect_sentence(sentence, cases[i].words);
        assert_int_equal(machine.current, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reasons_without_a_card, reset),
        cmocka_unit_test_setup(old_cards_are_left_out_with_a_reason, reset),
        cmocka_unit_test_setup(operands_must_lie_on_the_device, reset),
        cmocka_unit_test_setup(the_current_device_comes_back, reset),
        cmocka_unit_test_setup(launch_errors_have_statuses, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
