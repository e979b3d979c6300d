// Modules and launches. Machine code is a host library; PTX of candle's build is replaced by the libraries that `build` made of the same sources.
#include "streams.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include <dlfcn.h>
#include <elf.h>
#include <glob.h>
#include <unistd.h>

struct CUmod_st {
    int device;
    // The library, or the names of PTX.
    void* library;
    std::string ptx;
    std::map<std::string, CUfunction> functions;
};
struct CUfunc_st {
    CUmodule module;
    std::string name;
    const Entry* entry;
};

namespace {

// Loads the bytes of a host library; null if they are something else.
void* load(const char* image) {
    Elf64_Ehdr header;
    memcpy(&header, image, sizeof header);
    if (header.e_machine == EM_CUDA) return nullptr;
    const size_t bytes = header.e_shoff + (size_t)header.e_shnum * header.e_shentsize;
    char path[] = "/tmp/imitation-XXXXXX";
    const int file = mkstemp(path);
    if (file < 0 || write(file, image, bytes) != (ssize_t)bytes) fail("a module cannot be written to /tmp");
    close(file);
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail(std::string("a module cannot be loaded: ") + dlerror());
    unlink(path);
    return library;
}

// The kernel of candle with this name.
const Entry* candles(const std::string& symbol) {
    static std::vector<void*> libraries;
    if (libraries.empty()) {
        glob_t found;
        if (glob((own_folder() + "/candle-*.so").c_str(), 0, nullptr, &found) != 0) fail("found no kernels of candle");
        for (size_t i = 0; i < found.gl_pathc; i++) libraries.push_back(dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_LOCAL));
        globfree(&found);
    }
    for (void* library : libraries)
        if (void* entry = dlsym(library, symbol.c_str())) return (const Entry*)entry;
    return nullptr;
}

}  // namespace

std::string own_folder() {
    Dl_info info;
    if (!dladdr((void*)&own_folder, &info)) fail("its own folder is not known");
    char* path = realpath(info.dli_fname, nullptr);
    std::string folder(path);
    free(path);
    return folder.substr(0, folder.rfind('/'));
}

EXPORT CUresult CUDAAPI cuModuleLoadData(CUmodule* module, const void* image) {
    auto guard = locked();
    if (current_device() < 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (CUresult error = safe()) return error;
    auto made = std::make_unique<CUmod_st>(CUmod_st{current_device(), nullptr, "", {}});
    if (memcmp(image, ELFMAG, SELFMAG) == 0) {
        if (!(made->library = load((const char*)image))) return CUDA_ERROR_INVALID_IMAGE;
    } else {
        made->ptx = (const char*)image;
        if (made->ptx.find(".version") == std::string::npos) return CUDA_ERROR_INVALID_IMAGE;
    }
    return *module = made.release(), CUDA_SUCCESS;
}
// Functions of a module stay valid for queued launches, so nothing is unloaded.
EXPORT CUresult CUDAAPI cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }

EXPORT CUresult CUDAAPI cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    auto guard = locked();
    auto& known = module->functions[name];
    if (!known) {
        const std::string symbol = std::string("entry_") + name;
        const Entry* entry = nullptr;
        if (module->library) {
            entry = (const Entry*)dlsym(module->library, symbol.c_str());
        } else if (module->ptx.find(std::string(".entry ") + name + "(") != std::string::npos) {
            entry = candles(symbol);
            if (!entry) fail(std::string("candle's kernel ") + name + " is not imitated");
        }
        if (!entry) return CUDA_ERROR_NOT_FOUND;
        known = new CUfunc_st{module, name, entry};
    }
    return *function = known, CUDA_SUCCESS;
}

EXPORT CUresult CUDAAPI cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }

EXPORT CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                                       unsigned shared_bytes, CUstream stream, void** arguments, void** extra) {
    auto guard = locked();
    const int device = device_of(stream);
    if (device != current_device()) return CUDA_ERROR_INVALID_CONTEXT;
    if (function->module->device != device) fail("kernel " + function->name + " of device " + std::to_string(function->module->device) + " is launched on device " + std::to_string(device));
    const uint64_t threads = (uint64_t)block_x * block_y * block_z;
    const bool empty = (uint64_t)grid_x * grid_y * grid_z * threads == 0;
    if (CUresult error = queueable(stream)) return error;
    if (empty || threads > 1024 || grid_x > 0x7fffffffu || grid_y > 65535 || grid_z > 65535 || extra) return CUDA_ERROR_INVALID_VALUE;
    const Entry& entry = *function->entry;
    auto values = std::make_shared<std::vector<std::vector<char>>>();
    for (unsigned i = 0; i < entry.count; i++) values->emplace_back((char*)arguments[i], (char*)arguments[i] + entry.sizes[i]);
    enqueue(stream, [=] {
        std::vector<void*> addresses;
        for (auto& value : *values) {
            uint64_t number = 0;
            if (value.size() == sizeof number) {
                memcpy(&number, value.data(), sizeof number);
                check_argument(function->name.c_str(), device, number);
            }
            addresses.push_back(value.data());
        }
        run_grid(function->name, *function->entry, addresses.data(), {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes);
        if (setting("IMITATION_CHECK", 0)) check_zones("kernel " + function->name);
    });
    return CUDA_SUCCESS;
}
