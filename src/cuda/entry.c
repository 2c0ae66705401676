/* The plugin's one exported symbol. Static libraries call hd_cuda_backend instead. */
#include "../common/backend.h"

hd_backend_enter_t hd_cuda_backend;
__attribute__((visibility("default"))) hd_backend_enter_t heed_plugin_v1;

const hd_backend_t *heed_plugin_v1(const hd_host_t *host)
{
    return hd_cuda_backend(host);
}
