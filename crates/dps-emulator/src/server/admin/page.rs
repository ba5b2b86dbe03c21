//! The live page: plain HTML with a style and a script, compiled in.

use super::{
    Admin, Call,
    answer::{self, Answer, Problem},
};

pub(super) fn html(_: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    Ok(answer::whole("text/html; charset=utf-8", include_str!("page/index.html")))
}

pub(super) fn style(_: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    Ok(answer::whole("text/css; charset=utf-8", include_str!("page/page.css")))
}

pub(super) fn script(_: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    Ok(answer::whole("text/javascript; charset=utf-8", include_str!("page/page.js")))
}
