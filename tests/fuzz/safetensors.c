/* Fuzz target: safetensors files. Each tensor's bytes are read from first to last. */
#define _GNU_SOURCE
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static volatile unsigned sum;
    char path[64];
    st_error_t error;
    const st_tensor_t *tensor;
    int file = memfd_create("fuzz", 0);
    if (file < 0 || write(file, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    st_file_t *opened = st_open(path, &error);
    for (int i = 0; opened && (tensor = st_at(opened, i)); i++)
        for (size_t byte = 0; byte < tensor->bytes; byte++)
            sum += ((const unsigned char *)tensor->data)[byte];
    st_close(opened);
    close(file);
    return 0;
}
