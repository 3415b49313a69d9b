mod device;
mod properties;
mod rules;
