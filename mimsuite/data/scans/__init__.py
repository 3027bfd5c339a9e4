"""Medical scans: NIfTI and DICOM files, their packed form, views."""
