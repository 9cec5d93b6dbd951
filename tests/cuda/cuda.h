/* The part of the CUDA driver's interface that headers made by dflow use, with a driver that counts launches. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef unsigned long long CUdeviceptr;
typedef void *CUmodule, *CUfunction, *CUstream;
enum { CUDA_SUCCESS = 0 };

static int launches;

static inline CUresult cuModuleLoadData(CUmodule *m, const void *text) { *m = (void *)text; return 0; }
static inline CUresult cuModuleUnload(CUmodule m) { return m == 0; }
static inline CUresult cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) {
    *f = (CUfunction)strstr((const char *)m, name);
    return *f == 0;
}
static inline CUresult cuMemAlloc(CUdeviceptr *p, size_t n) { *p = (CUdeviceptr)(uintptr_t)calloc(n, 1); return *p == 0; }
static inline CUresult cuMemFree(CUdeviceptr p) { free((void *)(uintptr_t)p); return 0; }
static inline CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t n) {
    memcpy((void *)(uintptr_t)to, from, n);
    return 0;
}
static inline CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t n) {
    memcpy(to, (void *)(uintptr_t)from, n);
    return 0;
}
static inline CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t n, CUstream s) {
    return s ? 1 : cuMemcpyDtoH(to, from, n);
}
static inline CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char v, size_t n, CUstream s) {
    memset((void *)(uintptr_t)p, v, n);
    return s != 0;
}
static inline CUresult cuStreamSynchronize(CUstream s) { return s != 0; }
static inline CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                      unsigned bz, unsigned shared, CUstream s, void **args, void **extra) {
    launches += f && gx && gy == 1 && gz == 1 && bx && by == 1 && bz == 1 && !shared && !s && args && !extra;
    return 0;
}
