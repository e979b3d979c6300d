// NVRTC by the host's compiler: "machine code" is a host library.
#include "imitation.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include <nvrtc.h>
#include <sys/wait.h>
#include <unistd.h>

struct _nvrtcProgram {
    std::string source, log, binary;
};

static std::string content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

EXPORT nvrtcResult nvrtcVersion(int* major, int* minor) { return *major = CUDA_VERSION / 1000, *minor = CUDA_VERSION % 1000 / 10, NVRTC_SUCCESS; }
EXPORT nvrtcResult nvrtcGetNumSupportedArchs(int* count) { return *count = 5, NVRTC_SUCCESS; }
EXPORT nvrtcResult nvrtcGetSupportedArchs(int* all) {
    for (int architecture : {75, 80, 90, 100, 120}) *all++ = architecture;
    return NVRTC_SUCCESS;
}
EXPORT const char* nvrtcGetErrorString(nvrtcResult result) { return result == NVRTC_SUCCESS ? "NVRTC_SUCCESS" : "NVRTC_ERROR_COMPILATION"; }

EXPORT nvrtcResult nvrtcCreateProgram(nvrtcProgram* program, const char* source, const char*, int headers, const char* const*, const char* const*) {
    if (headers != 0) fail("NVRTC with headers is not imitated");
    return *program = new _nvrtcProgram{source, "", ""}, NVRTC_SUCCESS;
}
EXPORT nvrtcResult nvrtcDestroyProgram(nvrtcProgram* program) { return delete *program, NVRTC_SUCCESS; }

EXPORT nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int, const char* const*) {
    char folder[] = "/tmp/imitation-XXXXXX";
    if (!mkdtemp(folder)) fail("no folder for a source in /tmp");
    const std::string place = folder, source = place + "/kernels.cu", library = place + "/kernels.so", log = place + "/log";
    std::ofstream(source) << program->source;
    // The variables that make the program use the imitation are not for the compiler.
    const std::string command = "env -u LD_LIBRARY_PATH -u LD_PRELOAD bash '" + own_folder() + "/compile' " + source + " " + library + " > " + log + " 2>&1";
    const int status = system(command.c_str());
    program->log = content(log);
    program->binary = content(library);
    if (system(("rm -r " + place).c_str()) != 0) fail("a folder of sources cannot be removed");
    return status == 0 ? NVRTC_SUCCESS : NVRTC_ERROR_COMPILATION;
}

EXPORT nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t* bytes) { return *bytes = program->log.size() + 1, NVRTC_SUCCESS; }
EXPORT nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char* log) { return program->log.copy(log, program->log.size()), log[program->log.size()] = 0, NVRTC_SUCCESS; }
EXPORT nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t* bytes) { return *bytes = program->binary.size(), NVRTC_SUCCESS; }
EXPORT nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char* cubin) { return program->binary.copy(cubin, program->binary.size()), NVRTC_SUCCESS; }
