//! Matrix products by cuBLAS, for row-major matrices.

use crate::device::is_tf32_allowed;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::sys::{
    self, cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t,
};
use candle_core::{DType, Error, Result};
use std::ffi::c_void;

/// A factor: its address, the length of its rows in memory, and whether it is used transposed.
#[derive(Clone, Copy)]
pub(crate) struct Factor {
    pub(crate) at: u64,
    pub(crate) row: usize,
    pub(crate) transposed: bool,
}

impl Factor {
    pub(crate) fn new(at: u64, row: usize) -> Self {
        Self {
            at,
            row,
            transposed: false,
        }
    }

    pub(crate) fn transposed(at: u64, row: usize) -> Self {
        Self {
            at,
            row,
            transposed: true,
        }
    }

    fn operation(self) -> cublasOperation_t {
        if self.transposed {
            cublasOperation_t::CUBLAS_OP_T
        } else {
            cublasOperation_t::CUBLAS_OP_N
        }
    }
}

/// `out [m, n] = a [m, k] b [k, n]` for one matrix, or for a batch, where the addresses are those of lists of addresses.
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: Factor,
    pub(crate) b: Factor,
    /// Address and length of a row.
    pub(crate) out: (u64, usize),
    /// Type of the factors.
    pub(crate) dtype: DType,
    /// Type of the result.
    pub(crate) out_dtype: DType,
}

impl Product {
    pub(crate) fn run(&self, device: &CudaDevice) -> Result<()> {
        self.with(device, None)
    }

    /// A batch of products.
    pub(crate) fn run_batch(&self, device: &CudaDevice, batch: usize) -> Result<()> {
        self.with(device, Some(batch))
    }

    fn with(&self, device: &CudaDevice, batch: Option<usize>) -> Result<()> {
        device.cuda_stream().context().bind_to_thread().w()?;
        let (m, n, k) = (int(self.m)?, int(self.n)?, int(self.k)?);
        let (row_a, row_b, row_out) = (int(self.a.row)?, int(self.b.row)?, int(self.out.1)?);
        let (one, zero) = (1f32, 0f32);
        let (one, zero) = ((&raw const one).cast(), (&raw const zero).cast());
        let (kind, out_kind) = (kind(self.dtype), kind(self.out_dtype));
        // Matrices of a batch follow each other, and tensor cores read them 16 bytes at a time.
        let aligned = batch.is_none() || [m, n, k].iter().all(|side| side % 4 == 0);
        let compute = if self.dtype == DType::F32 && is_tf32_allowed() && aligned {
            cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
        } else {
            cublasComputeType_t::CUBLAS_COMPUTE_32F
        };
        let algorithm = cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT;
        let blas = device.cublas_handle();
        let (op_a, op_b) = (self.a.operation(), self.b.operation());
        // cuBLAS is column-major, so a row-major product is that of the transposed matrices in reverse order.
        // SAFETY: the addresses are those of matrices, or lists, of these sizes on this device.
        let status = unsafe {
            match batch {
                None => sys::cublasGemmEx(
                    *blas.handle(),
                    op_b,
                    op_a,
                    n,
                    m,
                    k,
                    one,
                    self.b.at as *const c_void,
                    kind,
                    row_b,
                    self.a.at as *const c_void,
                    kind,
                    row_a,
                    zero,
                    self.out.0 as *mut c_void,
                    out_kind,
                    row_out,
                    compute,
                    algorithm,
                ),
                Some(batch) => sys::cublasGemmBatchedEx(
                    *blas.handle(),
                    op_b,
                    op_a,
                    n,
                    m,
                    k,
                    one,
                    self.b.at as *const *const c_void,
                    kind,
                    row_b,
                    self.a.at as *const *const c_void,
                    kind,
                    row_a,
                    zero,
                    self.out.0 as *const *mut c_void,
                    out_kind,
                    row_out,
                    int(batch)?,
                    compute,
                    algorithm,
                ),
            }
        };
        status.result().map_err(|error| {
            Error::Msg(format!(
                "cuBLAS: a product of [{}, {}] and [{}, {}] ({:?}): {error:?}",
                self.m, self.k, self.k, self.n, self.dtype
            ))
        })
    }
}

fn kind(dtype: DType) -> cudaDataType_t {
    match dtype {
        DType::BF16 => cudaDataType_t::CUDA_R_16BF,
        DType::F16 => cudaDataType_t::CUDA_R_16F,
        _ => cudaDataType_t::CUDA_R_32F,
    }
}

fn int(n: usize) -> Result<i32> {
    i32::try_from(n)
        .map_err(|_| Error::Msg(format!("cuBLAS: expected a side below 2^31, found {n}")))
}
