// cuDNN's backend interface for graphs of one convolution. Its engines differ as real ones do: some need scratch memory, round, change from run to
// run, take no channels-last tensors, or fail when a plan is finalised or run.
#include "convolution.h"
#include "imitation.h"

#include <map>
#include <memory>
#include <vector>

#include <cudnn.h>

struct cudnnContext {
    int device;
    CUstream stream;
};

namespace {

enum class Failure { None, Finalize, Execute };
struct Engine {
    int64_t index;
    std::vector<cudnnBackendNumericalNote_t> notes;
    int64_t workspace;
    Rounding rounding;
    Failure failure;
};

struct Values {
    cudnnBackendAttributeType_t kind;
    std::vector<char> bytes;
};

struct Descriptor {
    cudnnBackendDescriptorType_t kind;
    bool final = false;
    std::map<cudnnBackendAttributeName_t, Values> values;
    // Descriptors are copied when they are set, so they may be destroyed afterwards.
    std::map<cudnnBackendAttributeName_t, std::vector<std::shared_ptr<Descriptor>>> links;
    std::shared_ptr<Convolution> convolution;
    std::shared_ptr<Engine> engine;

    template <class T> std::vector<T> all(cudnnBackendAttributeName_t name) const {
        const auto found = values.find(name);
        if (found == values.end()) fail("cuDNN: attribute " + std::to_string(name) + " of a descriptor of kind " + std::to_string(kind) + " is not set");
        const T* first = (const T*)found->second.bytes.data();
        return {first, first + found->second.bytes.size() / sizeof(T)};
    }
    template <class T> T one(cudnnBackendAttributeName_t name) const { return all<T>(name).at(0); }
    const Descriptor& link(cudnnBackendAttributeName_t name) const {
        const auto found = links.find(name);
        if (found == links.end() || found->second.size() != 1) fail("cuDNN: descriptor " + std::to_string(name) + " is not set");
        return *found->second[0];
    }
};

using Handle = std::shared_ptr<Descriptor>;
Handle& of(cudnnBackendDescriptor_t raw) { return *(Handle*)raw; }

size_t size_of_kind(cudnnBackendAttributeType_t kind) {
    switch (kind) {
    case CUDNN_TYPE_BOOLEAN: return 1;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    case CUDNN_TYPE_DATA_TYPE:
    case CUDNN_TYPE_FLOAT:
    case CUDNN_TYPE_CONVOLUTION_MODE:
    case CUDNN_TYPE_HEUR_MODE: return 4;
    default: fail("cuDNN: values of kind " + std::to_string(kind) + " are not imitated");
    }
}

std::array<int64_t, 4> four(const std::vector<int64_t>& v) {
    if (v.size() != 4) fail("cuDNN: a tensor of " + std::to_string(v.size()) + " dimensions");
    return {v[0], v[1], v[2], v[3]};
}

Tensor tensor_of(const Descriptor& d) {
    Number kind;
    switch (d.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE)) {
    case CUDNN_DATA_FLOAT: kind = Number::F32; break;
    case CUDNN_DATA_BFLOAT16: kind = Number::BF16; break;
    case CUDNN_DATA_HALF: kind = Number::F16; break;
    default: fail("cuDNN: a type of tensors that is not imitated");
    }
    return {kind, four(d.all<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS)), four(d.all<int64_t>(CUDNN_ATTR_TENSOR_STRIDES)), d.one<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID),
            d.one<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT)};
}

// The convolution of an operation; its attributes follow each other: alpha, beta, descriptor, w, x, y.
Convolution convolution_of(const Descriptor& operation, Pass pass) {
    struct Names { cudnnBackendAttributeName_t conv, x, w, y, alpha, beta; };
    const Names n = pass == Pass::Forward
                        ? Names{CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA}
                    : pass == Pass::InputGradient
                        ? Names{CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA}
                        : Names{CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    const Descriptor& conv = operation.link(n.conv);
    const auto two = [&](cudnnBackendAttributeName_t name) -> std::array<int64_t, 2> {
        const auto v = conv.all<int64_t>(name);
        if (v.size() != 2) fail("cuDNN: a convolution needs two numbers for attribute " + std::to_string(name));
        return {v[0], v[1]};
    };
    if (two(CUDNN_ATTR_CONVOLUTION_DILATIONS) != std::array<int64_t, 2>{1, 1} || conv.one<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) != CUDNN_CROSS_CORRELATION ||
        conv.one<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT)
        fail("cuDNN: only cross-correlation in float without dilation is imitated");
    Convolution c{pass, tensor_of(operation.link(n.x)), tensor_of(operation.link(n.w)), tensor_of(operation.link(n.y)), two(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES),
                  two(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS), two(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS), operation.one<float>(n.alpha), operation.one<float>(n.beta)};
    for (int i = 0; i < 2; i++)
        if (c.y.dims[2 + i] != (c.x.dims[2 + i] + c.before[i] + c.after[i] - c.w.dims[2 + i]) / c.stride[i] + 1) fail("cuDNN: the size of y does not follow from x, w and padding");
    if (c.x.dims[1] != c.w.dims[1] || c.y.dims[1] != c.w.dims[0] || c.x.dims[0] != c.y.dims[0]) fail("cuDNN: the tensors do not fit");
    return c;
}

std::vector<Engine> engines_of(const Convolution& c, cudnnBackendHeurMode_t mode) {
    const bool half = c.x.kind != Number::F32, channels_last = c.x.strides[1] == 1 && c.x.dims[1] > 1;
    const auto tensor_core = CUDNN_NUMERICAL_NOTE_TENSOR_CORE, changing = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    const Rounding rounding = half ? Rounding::Exact : Rounding::Tf32;
    if (mode == CUDNN_HEUR_MODE_FALLBACK) {
        // Exact engines for few channels want planes.
        if (!half && channels_last && c.x.dims[1] < 8) return {};
        return {{0, {}, 0, Rounding::Exact, Failure::None}};
    }
    std::vector<Engine> all = {
        {1, {tensor_core}, 0, rounding, Failure::Finalize},
        {2, {tensor_core}, 0, rounding, Failure::Execute},
        {3, {tensor_core, changing}, 0, Rounding::Nondeterministic, Failure::None},
        {4, {tensor_core}, (int64_t)1 << 40, rounding, Failure::None},
        {5, {tensor_core}, 1 << 16, rounding, Failure::None},
        {6, {changing}, 0, Rounding::Nondeterministic, Failure::None},
    };
    if (half) all.push_back({7, {tensor_core}, 0, rounding, Failure::None});
    else if (!channels_last) all.push_back({8, {}, 1 << 12, Rounding::Exact, Failure::None});
    return all;
}

void check_tensor(const char* what, const Tensor& t, int device, const void* at) {
    int64_t last = 0;
    for (int i = 0; i < 4; i++) last += (t.dims[i] - 1) * t.strides[i];
    if ((uint64_t)at % (uint64_t)t.alignment != 0) fail(std::string(what) + ": an address that is not aligned as its tensor states");
    check_range(what, device, (uint64_t)at, (uint64_t)(last + 1) * size_of(t.kind));
}

}  // namespace

EXPORT size_t cudnnGetVersion() { return CUDNN_VERSION; }
EXPORT const char* cudnnGetErrorString(cudnnStatus_t status) { return status == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_BAD_PARAM"; }
EXPORT cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
    if (current_device() < 0) return CUDNN_STATUS_NOT_INITIALIZED;
    return *handle = new cudnnContext{current_device(), nullptr}, CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return delete handle, CUDNN_STATUS_SUCCESS; }
EXPORT cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) { return handle->stream = (CUstream)stream, CUDNN_STATUS_SUCCESS; }

EXPORT cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t kind, cudnnBackendDescriptor_t* descriptor) {
    auto made = std::make_shared<Descriptor>();
    made->kind = kind;
    return *descriptor = new Handle(made), CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) { return delete &of(descriptor), CUDNN_STATUS_SUCCESS; }

EXPORT cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t kind, int64_t count, const void* values) {
    Descriptor& d = *of(descriptor);
    if (d.final || count < 0 || !values) return CUDNN_STATUS_BAD_PARAM;
    if (kind == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        auto& links = d.links[name];
        links.clear();
        for (int64_t i = 0; i < count; i++) {
            const Handle& to = of(((const cudnnBackendDescriptor_t*)values)[i]);
            if (!to->final) return CUDNN_STATUS_BAD_PARAM;
            links.push_back(to);
        }
    } else {
        const char* first = (const char*)values;
        d.values[name] = {kind, {first, first + count * size_of_kind(kind)}};
    }
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    auto guard = locked();
    Descriptor& d = *of(descriptor);
    switch (d.kind) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR: tensor_of(d); break;
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR: break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR: d.convolution = std::make_shared<Convolution>(convolution_of(d, Pass::Forward)); break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR: d.convolution = std::make_shared<Convolution>(convolution_of(d, Pass::InputGradient)); break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR: d.convolution = std::make_shared<Convolution>(convolution_of(d, Pass::WeightGradient)); break;
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        d.one<cudnnHandle_t>(CUDNN_ATTR_OPERATIONGRAPH_HANDLE);
        d.convolution = d.link(CUDNN_ATTR_OPERATIONGRAPH_OPS).convolution;
        break;
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
        d.convolution = d.link(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH).convolution;
        d.one<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE);
        break;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: {
        d.one<cudnnHandle_t>(CUDNN_ATTR_EXECUTION_PLAN_HANDLE);
        const Descriptor& config = d.link(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
        d.convolution = config.convolution, d.engine = config.engine;
        if (d.engine->failure == Failure::Finalize) return CUDNN_STATUS_NOT_SUPPORTED;
        break;
    }
    default: fail("cuDNN: descriptors of kind " + std::to_string(d.kind) + " are not imitated");
    }
    d.final = true;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t, int64_t room, int64_t* count, void* values) {
    const Descriptor& d = *of(descriptor);
    if (!d.final) return CUDNN_STATUS_BAD_PARAM;
    switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS: {
        const auto all = engines_of(*d.convolution, d.one<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE));
        *count = (int64_t)all.size();
        for (int64_t i = 0; i < *count && i < room; i++) {
            Descriptor& config = *of(((cudnnBackendDescriptor_t*)values)[i]);
            config.convolution = d.convolution, config.engine = std::make_shared<Engine>(all[i]), config.final = true;
        }
        break;
    }
    case CUDNN_ATTR_ENGINECFG_ENGINE: {
        Descriptor& engine = *of(*(cudnnBackendDescriptor_t*)values);
        engine.engine = d.engine, engine.final = true;
        *count = 1;
        break;
    }
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        *count = (int64_t)d.engine->notes.size();
        for (int64_t i = 0; i < *count && i < room; i++) ((cudnnBackendNumericalNote_t*)values)[i] = d.engine->notes[i];
        break;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        *(int64_t*)values = d.engine->index;
        *count = 1;
        break;
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        *(int64_t*)values = d.engine->workspace;
        if (count) *count = 1;
        break;
    default: fail("cuDNN: attribute " + std::to_string(name) + " cannot be read in the imitation");
    }
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
    auto guard = locked();
    const Descriptor &p = *of(plan), &v = *of(pack);
    if (!p.final || !v.final) return CUDNN_STATUS_BAD_PARAM;
    if (p.engine->failure == Failure::Execute) return CUDNN_STATUS_NOT_SUPPORTED;
    if (handle->device != current_device()) fail("cuDNN: the handle of another device");
    const auto ids = v.all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const auto pointers = v.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    std::map<int64_t, void*> at;
    for (size_t i = 0; i < ids.size(); i++) at[ids[i]] = pointers.at(i);
    void* scratch = v.one<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    enqueue(handle->stream, [c = *p.convolution, e = *p.engine, device = handle->device, at, scratch] {
        void *x = at.at(c.x.id), *w = at.at(c.w.id), *y = at.at(c.y.id);
        check_tensor("cuDNN, x", c.x, device, x);
        check_tensor("cuDNN, w", c.w, device, w);
        check_tensor("cuDNN, y", c.y, device, y);
        check_range("cuDNN, scratch memory", device, (uint64_t)scratch, e.workspace);
        // An engine writes all of its scratch memory.
        memset(scratch, 0xff, e.workspace);
        convolve(c, e.rounding, x, w, y);
    });
    return CUDNN_STATUS_SUCCESS;
}
